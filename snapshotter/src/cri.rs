//! A proxy of the CRI image service, for kubelet's `--image-service-endpoint`: how credentials that kubelet gives with a
//! pull reach the layers of the image.
//!
//! Every call is passed on to containerd as it is and answered with containerd's own answer, methods that this program
//! never heard of too: what is passed on are HTTP/2 requests, not messages. Only PullImage and RemoveImage are looked
//! into: credentials of a pull are usable from its beginning, since containerd asks for the layers before it answers,
//! and are kept if the answer says that it succeeded.

mod message;
mod upstream;

#[cfg(test)]
mod tests;

use std::{convert::Infallible, path::Path, sync::Arc};

use axum::{body::Body, extract::Request, response::Response};
use futures_util::stream;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::{
    HeaderMap,
    body::{Bytes, Frame, Incoming},
};
use proto::cri::{PullImageRequest, PullImageResponse, RemoveImageRequest};
use registry::{Login, Pull, Reference, RememberedCredentials, Secret};
use tonic::{
    Code, Status,
    codegen::http::{request, response},
};

use self::{message::decode, upstream::Upstream};
use crate::crash::told;

/// Where containerd serves the image service by default.
pub const DEFAULT_SERVICE: &str = "/run/containerd/containerd.sock";
/// The image service's methods, of any version, are below this.
const RUNTIME: &str = "/runtime.";
/// Messages of the calls that are looked into; gRPC's own limit on kubelet's and containerd's side.
const MAX_MESSAGE: usize = 16 << 20;

/// The proxy.
#[derive(Debug, Clone)]
pub struct ImageService(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    upstream: Upstream,
    remembered: Arc<RememberedCredentials>,
}

/// An answer that was read whole.
struct Whole {
    head: response::Parts,
    message: Bytes,
    trailers: Option<HeaderMap>,
}

// === impl ImageService ===

impl ImageService {
    /// A proxy of the service at the socket `service`. No connection is made before the first call.
    pub fn new(service: &Path, remembered: Arc<RememberedCredentials>) -> Self {
        Self(Arc::new(Inner { upstream: Upstream::new(service), remembered }))
    }

    /// Passes on whatever comes, for a socket of its own.
    pub fn router(self) -> axum::Router {
        self.beside(axum::Router::new(), "/")
    }

    /// Passes on calls of the image service that come where `router` serves other things.
    pub fn beside_snapshots(self, router: axum::Router) -> axum::Router {
        self.beside(router, RUNTIME)
    }

    fn beside(self, router: axum::Router, prefix: &'static str) -> axum::Router {
        router.fallback(move |request: Request| {
            let service = self.clone();
            async move {
                if !request.uri().path().starts_with(prefix) {
                    return refuse(Status::unimplemented(""));
                }
                service.answer(request).await.unwrap_or_else(refuse)
            }
        })
    }

    async fn answer(&self, request: Request) -> Result<Response, Status> {
        let path = request.uri().path();
        let method = path.starts_with(RUNTIME).then(|| path.rsplit('/').next()).flatten();
        match method {
            Some("PullImage") => self.pull(request).await,
            Some("RemoveImage") => self.remove(request).await,
            _ => Ok(self.0.upstream.send(request).await?.map(Body::new)),
        }
    }

    async fn pull(&self, request: Request) -> Result<Response, Status> {
        let (parts, message) = read(request).await?;
        let pull = decode::<PullImageRequest>(&message).and_then(|request| self.begin(request));
        let answer = self.0.upstream.send(again(parts, message)).await?;
        let Some(pull) = pull else { return Ok(answer.map(Body::new)) };
        let answer = whole(answer).await?;
        if answer.succeeded() {
            let image = decode::<PullImageResponse>(&answer.message).unwrap_or_default().image_ref;
            let reference = pull.reference().to_string();
            blocking(move || pull.succeeded(&image)).await;
            tracing::debug!(reference, "credentials of a pull are kept for its layers");
        }
        Ok(answer.into_response())
    }

    /// Makes the credentials of a pull usable; nothing if it has none.
    fn begin(&self, request: PullImageRequest) -> Option<Pull> {
        let (image, auth) = (request.image?.image, request.auth?);
        let Ok(reference) = image.parse::<Reference>() else {
            tracing::debug!(image, "a pull names no image of a registry: its credentials are not used");
            return None;
        };
        let login = Login {
            username: auth.username,
            password: Secret::new(auth.password),
            auth: Secret::new(auth.auth),
            server_address: auth.server_address,
            identity_token: Secret::new(auth.identity_token),
            registry_token: Secret::new(auth.registry_token),
        };
        Some(self.0.remembered.begin(&reference, &login))
    }

    async fn remove(&self, request: Request) -> Result<Response, Status> {
        let (parts, message) = read(request).await?;
        let image = decode::<RemoveImageRequest>(&message).and_then(|request| request.image);
        let answer = self.0.upstream.send(again(parts, message)).await?;
        let Some(image) = image else { return Ok(answer.map(Body::new)) };
        let answer = whole(answer).await?;
        if answer.succeeded() {
            let remembered = Arc::clone(&self.0.remembered);
            blocking(move || remembered.forget(&image.image)).await;
        }
        Ok(answer.into_response())
    }
}

// === impl Whole ===

impl Whole {
    /// Whether it ends with the status that means success.
    fn succeeded(&self) -> bool {
        let ends = self.trailers.as_ref().unwrap_or(&self.head.headers);
        ends.get("grpc-status").is_some_and(|status| Code::from_bytes(status.as_bytes()) == Code::Ok)
    }

    /// The answer as it came.
    fn into_response(self) -> Response {
        let message = Some(self.message).filter(|message| !message.is_empty()).map(Frame::data);
        let frames: Vec<_> = message.into_iter().chain(self.trailers.map(Frame::trailers)).collect();
        let body = match frames.is_empty() {
            // Its head was its end, too.
            true => Body::empty(),
            false => Body::new(StreamBody::new(stream::iter(frames.into_iter().map(Ok::<_, Infallible>)))),
        };
        Response::from_parts(self.head, body)
    }
}

/// A failed call, as gRPC has it: the status is in the head of the answer.
fn refuse(status: Status) -> Response {
    status.into_http::<Body>()
}

/// A call's head and its message, which is small.
async fn read(request: Request) -> Result<(request::Parts, Bytes), Status> {
    let (parts, body) = request.into_parts();
    let message = axum::body::to_bytes(body, MAX_MESSAGE)
        .await
        .map_err(|_| Status::resource_exhausted("the message of this call broke off or is too large"))?;
    Ok((parts, message))
}

/// The call as it came; its length is not told, since it was not told to us.
fn again(parts: request::Parts, message: Bytes) -> Request {
    let pieces = stream::iter([Ok::<_, Infallible>(message)]);
    Request::from_parts(parts, Body::from_stream(pieces))
}

async fn whole(answer: Response<Incoming>) -> Result<Whole, Status> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_MESSAGE).collect().await;
    let body = body.map_err(|error| Status::unavailable(format!("the answer broke off: {error}")))?;
    let trailers = body.trailers().cloned();
    Ok(Whole { head, message: body.to_bytes(), trailers })
}

/// Writing to disk takes its time; what goes wrong there is logged there.
async fn blocking(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::warn!(error = told(&error), "cannot keep the credentials of a pull");
    }
}
