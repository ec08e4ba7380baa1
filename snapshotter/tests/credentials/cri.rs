//! kubelet's half of a pull, and containerd's half of the image service.

use std::{future::Future, path::Path, sync::Arc};

use axum::{body::Body, extract::Request, response::Response};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use proto::cri::{AuthConfig, ImageSpec, PullImageRequest, PullImageResponse, RemoveImageRequest};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::oneshot,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Status;

type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A containerd that pulls whatever it is told to.
#[derive(Clone, Default)]
pub(crate) struct Containerd {
    /// Done before the next pull is answered.
    work: Arc<Mutex<Option<Work>>>,
    refuses: Arc<Mutex<bool>>,
}

// === impl Containerd ===

impl Containerd {
    pub(crate) async fn start(socket: &Path) -> Self {
        let containerd = Self::default();
        let listener = UnixListener::bind(socket).unwrap();
        let answering = containerd.clone();
        let router = axum::Router::new().fallback(move |request: Request| answering.clone().answer(request));
        let server = tonic::transport::Server::builder().add_routes(tonic::service::Routes::from(router));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        containerd
    }

    /// Does `work` while the next pull is under way; its outcome.
    pub(crate) fn during_a_pull<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (tell, told) = oneshot::channel();
        *self.work.lock() = Some(Box::pin(async move {
            // Nobody may wait for it.
            let _ = tell.send(work.await);
        }));
        told
    }

    pub(crate) fn refuse_pulls(&self) {
        *self.refuses.lock() = true;
    }

    async fn answer(self, request: Request) -> Response {
        let pull = request.uri().path().ends_with("/PullImage");
        let work = pull.then(|| self.work.lock().take()).flatten();
        if let Some(work) = work {
            work.await;
        }
        if pull && *self.refuses.lock() {
            return Status::internal("the registry says no").into_http::<Body>();
        }
        let message = PullImageResponse { image_ref: "sha256:1".to_owned() };
        let mut trailers = hyper::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let body = Body::from(framed(&message)).with_trailers(async { Some(Ok(trailers)) });
        let mut response = Response::new(Body::new(body));
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        response
    }
}

fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

/// kubelet's PullImage through the proxy at `socket`.
pub(crate) async fn pull(socket: &Path, image: &str, username: &str, password: &str) -> Result<(), Status> {
    let (username, password) = (username.to_owned(), password.to_owned());
    let auth = Some(AuthConfig { username, password, ..AuthConfig::default() });
    let image = Some(ImageSpec { image: image.to_owned() });
    call(socket, "PullImage", framed(&PullImageRequest { image, auth })).await
}

/// kubelet's RemoveImage.
pub(crate) async fn remove(socket: &Path, image: &str) -> Result<(), Status> {
    let image = Some(ImageSpec { image: image.to_owned() });
    call(socket, "RemoveImage", framed(&RemoveImageRequest { image })).await
}

async fn call(socket: &Path, method: &str, body: Vec<u8>) -> Result<(), Status> {
    let stream = TokioIo::new(UnixStream::connect(socket).await.unwrap());
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method("POST")
        .uri(format!("http://localhost/runtime.v1.ImageService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::from(body))
        .unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let status = Status::from_header_map(body.trailers().unwrap_or(&parts.headers));
    status.filter(|status| status.code() != tonic::Code::Ok).map_or(Ok(()), Err)
}
