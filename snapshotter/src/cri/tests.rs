//! kubelet's side and containerd's side around the proxy, both as bare HTTP/2.

use std::time::Duration;

use http_body_util::Collected;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use proto::cri::{AuthConfig, ImageSpec};
use registry::{CredentialQuery, CredentialSource, Credentials};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;

use super::*;

/// An answer as kubelet got it.
type Got = Response<Collected<Bytes>>;

fn succeeded(got: &Got) -> bool {
    got.body().trailers().is_some_and(|trailers| trailers["grpc-status"] == "0")
}

/// A call as containerd got it.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
    /// The passwords that the proxy had for `example.com/app` while the call was under way.
    known: Vec<String>,
}

struct World {
    directory: tempfile::TempDir,
    remembered: Arc<RememberedCredentials>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// The status with which PullImage and RemoveImage end.
    status: Arc<Mutex<&'static str>>,
    /// Whatever answers for containerd; nothing of it is left when this ends.
    upstream: Option<tokio::runtime::Runtime>,
}

async fn known(remembered: &RememberedCredentials, repository: &str) -> Vec<String> {
    let query = CredentialQuery { host: "example.com", repository };
    let found = remembered.candidates(query).await.unwrap();
    let password = |credentials| match credentials {
        Credentials::Password { password, .. } => password.expose().to_owned(),
        other => panic!("{other:?}"),
    };
    found.into_iter().map(password).collect()
}

fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

/// An answer with trailers.
fn ending(message: Vec<u8>, status: &'static str) -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("x-end", "kept".parse().unwrap());
    let frames = [hyper::body::Frame::data(Bytes::from(message)), hyper::body::Frame::trailers(trailers)];
    let frames = frames.into_iter().map(Ok::<_, std::convert::Infallible>);
    let mut answer = Response::new(Body::new(http_body_util::StreamBody::new(stream::iter(frames))));
    answer.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    answer
}

async fn serve(listener: UnixListener, router: axum::Router) {
    tonic::transport::Server::builder()
        .add_routes(tonic::service::Routes::from(router))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .unwrap();
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let week = Duration::from_secs(7 * 24 * 3600);
        let remembered = RememberedCredentials::open(&directory.path().join("kept"), week);
        let (seen, status) = (Arc::default(), Arc::new(Mutex::new("0")));
        let mut world = Self { directory, remembered, seen, status, upstream: None };
        world.start_upstream();
        let service = ImageService::new(&world.path("containerd.sock"), world.remembered.clone());
        let listener = UnixListener::bind(world.path("proxy.sock")).unwrap();
        tokio::spawn(serve(listener, service.router()));
        world
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// A containerd that notes what it is asked.
    fn start_upstream(&mut self) {
        let _ = std::fs::remove_file(self.path("containerd.sock"));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(self.path("containerd.sock")).unwrap()
        };
        let (seen, status, remembered) = (self.seen.clone(), self.status.clone(), self.remembered.clone());
        let router = axum::Router::new().fallback(move |request: Request| {
            let (seen, status, remembered) = (seen.clone(), status.clone(), remembered.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes().to_vec();
                let path = parts.uri.path().to_owned();
                let known = known(&remembered, "app").await;
                seen.lock().push(Seen {
                    path: path.clone(),
                    headers: parts.headers,
                    body: body.clone(),
                    known,
                });
                match path.rsplit('/').next().unwrap() {
                    "PullImage" => {
                        ending(framed(&PullImageResponse { image_ref: "sha256:1".into() }), *status.lock())
                    }
                    "Fails" => refuse(Status::not_found("no such thing")),
                    _ => ending(body, *status.lock()),
                }
            }
        });
        runtime.spawn(serve(listener, router));
        self.upstream = Some(runtime);
    }

    fn stop_upstream(&mut self) {
        if let Some(runtime) = self.upstream.take() {
            runtime.shutdown_background();
        }
    }

    /// A call as kubelet makes it.
    async fn call(&self, path: &str, body: Vec<u8>) -> Got {
        let stream = UnixStream::connect(self.path("proxy.sock")).await.unwrap();
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method("POST")
            .uri(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "grpc-go/1.80.0")
            .header("x-trace", "abc")
            .body(Body::from_stream(stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(body))])))
            .unwrap();
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        Response::from_parts(parts, body.collect().await.unwrap())
    }

    async fn pull(&self, image: &str, password: &str) -> Got {
        let auth = AuthConfig { username: "me".into(), password: password.into(), ..AuthConfig::default() };
        let image = Some(ImageSpec { image: image.into() });
        let request = framed(&PullImageRequest { image, auth: Some(auth) });
        self.call("/runtime.v1.ImageService/PullImage", request).await
    }

    async fn remove(&self, image: &str) -> Got {
        let request = framed(&RemoveImageRequest { image: Some(ImageSpec { image: image.into() }) });
        self.call("/runtime.v1.ImageService/RemoveImage", request).await
    }

    fn last(&self) -> Seen {
        self.seen.lock().last().unwrap().clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop_upstream();
    }
}

#[tokio::test]
async fn every_method_is_passed_on_untouched() {
    let world = World::new().await;
    for path in [
        "/runtime.v1.ImageService/ListImages",
        "/runtime.v1.ImageService/StreamImages",
        "/runtime.v1.ImageService/MethodOfTheFuture",
        "/runtime.v2.ImageService/PullImageNot",
        "/some.other.v1.Service/Method",
    ] {
        let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        let answer = world.call(path, body.clone()).await;
        let seen = world.last();
        assert_eq!((seen.path.as_str(), &seen.body), (path, &body));
        let sent: Vec<_> =
            seen.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let expected = [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "grpc-go/1.80.0"),
            ("x-trace", "abc"),
        ];
        assert_eq!(sent, expected, "no header more, none less");
        assert!(succeeded(&answer));
        assert_eq!(answer.body().trailers().unwrap()["x-end"], "kept");
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        assert_eq!(answer.into_body().to_bytes(), body);
    }
    let failed = world.call("/runtime.v1.ImageService/Fails", Vec::new()).await;
    assert_eq!(failed.headers()["grpc-status"], "5");
    assert_eq!(failed.headers()["grpc-message"], "no%20such%20thing");
}

#[tokio::test]
async fn credentials_are_known_during_a_pull_and_kept_after_it() {
    let world = World::new().await;
    let answer = world.pull("example.com/app:1", "planted").await;
    assert!(succeeded(&answer));
    let message = answer.into_body().to_bytes();
    assert_eq!(decode::<PullImageResponse>(&message).unwrap().image_ref, "sha256:1");
    let seen = world.last();
    assert_eq!(seen.known, ["planted"], "the layers are asked for before the pull is answered");
    assert_eq!(decode::<PullImageRequest>(&seen.body).unwrap().auth.unwrap().password, "planted");
    assert_eq!(known(&world.remembered, "app").await, ["planted"]);
    let week = Duration::from_secs(7 * 24 * 3600);
    let restarted = RememberedCredentials::open(&world.path("kept"), week);
    assert_eq!(known(&restarted, "app").await, ["planted"]);
    assert_eq!(known(&restarted, "other").await, [""; 0]);
}

#[tokio::test]
async fn credentials_of_a_failed_pull_are_forgotten() {
    let world = World::new().await;
    *world.status.lock() = "13";
    assert!(!succeeded(&world.pull("example.com/app:1", "bad").await));
    assert_eq!(world.last().known, ["bad"]);
    assert_eq!(known(&world.remembered, "app").await, [""; 0]);
}

#[tokio::test]
async fn a_removed_image_is_forgotten_when_it_is_removed() {
    let world = World::new().await;
    world.pull("example.com/app:1", "p").await;
    *world.status.lock() = "9";
    world.remove("sha256:1").await;
    assert_eq!(world.remembered.len(), 1, "it was not removed");
    *world.status.lock() = "0";
    world.remove("sha256:1").await;
    assert!(world.remembered.is_empty());
    world.pull("example.com/app:1", "p").await;
    world.remove("example.com/app:1").await;
    assert!(world.remembered.is_empty());
}

#[tokio::test]
async fn nonsense_in_a_pull_is_passed_on_too() {
    let world = World::new().await;
    for body in [b"\0\0\0\0\x02\xff\xff".to_vec(), b"\x01\0\0\0\0".to_vec(), Vec::new(), vec![7; 100]] {
        world.call("/runtime.v1.ImageService/PullImage", body.clone()).await;
        assert_eq!(world.last().body, body);
    }
    world.pull("NOT AN IMAGE", "p").await;
    assert!(world.remembered.is_empty());
}

#[tokio::test]
async fn a_restarted_containerd_is_found_again_and_a_missing_one_is_said() {
    let mut world = World::new().await;
    world.pull("example.com/app:1", "p").await;
    world.stop_upstream();
    std::fs::remove_file(world.path("containerd.sock")).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = world.call("/runtime.v1.ImageService/ListImages", Vec::new()).await;
    assert_eq!(answer.headers()["grpc-status"], "14", "{answer:?}");
    assert!(answer.headers()["grpc-message"].to_str().unwrap().contains("containerd.sock"));
    world.start_upstream();
    assert!(succeeded(&world.call("/runtime.v1.ImageService/ListImages", Vec::new()).await));
}

#[tokio::test]
async fn beside_other_services_only_calls_of_the_runtime_are_passed_on() {
    let world = World::new().await;
    let service = ImageService::new(&world.path("containerd.sock"), world.remembered.clone());
    std::fs::remove_file(world.path("proxy.sock")).unwrap();
    let listener = UnixListener::bind(world.path("proxy.sock")).unwrap();
    let own = axum::Router::new()
        .route("/own/method", axum::routing::any(|| async { ending(b"own".to_vec(), "0") }));
    tokio::spawn(serve(listener, service.beside_snapshots(own)));
    assert_eq!(world.call("/own/method", Vec::new()).await.into_body().to_bytes(), "own");
    assert!(succeeded(&world.call("/runtime.v1.ImageService/ListImages", Vec::new()).await));
    let other = world.call("/containerd.services.leases.v1.Leases/List", Vec::new()).await;
    assert_eq!(other.headers()["grpc-status"], "12");
    assert_eq!(world.seen.lock().len(), 1);
}

#[tokio::test]
async fn what_is_logged_and_shown_holds_no_password() {
    let world = World::new().await;
    world.pull("example.com/app:1", "planted").await;
    let auth = AuthConfig { password: "planted".into(), ..AuthConfig::default() };
    let request = PullImageRequest { image: None, auth: Some(auth) };
    assert!(!format!("{request:?} {:?}", world.remembered).contains("planted"));
}
