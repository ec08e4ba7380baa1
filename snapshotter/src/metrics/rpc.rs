//! A tower layer around the gRPC services that counts calls and times them.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tonic::{Code, codegen::http};
use tower::{Layer, Service};

use super::Metrics;

/// Counts every call that passes, by method and gRPC code.
#[derive(Debug, Clone)]
pub struct CountRpcs(pub Metrics);

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Layer<S> for CountRpcs {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: self.0.clone() }
    }
}

impl<S, B, R> Service<http::Request<B>> for Counted<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = method(request.uri().path());
        let (metrics, start) = (self.metrics.clone(), Instant::now());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            metrics.rpc(method, code(answer.headers()), start.elapsed());
            Ok(answer)
        })
    }
}

/// Methods by a fixed list: a path is chosen by the caller, a label's values must not be.
fn method(path: &str) -> &'static str {
    const METHODS: [&str; 11] = [
        "Prepare",
        "View",
        "Mounts",
        "Commit",
        "Remove",
        "Stat",
        "Update",
        "List",
        "Usage",
        "Cleanup",
        "ListStream",
    ];
    let last = path.rsplit('/').next().unwrap_or_default();
    METHODS.into_iter().find(|name| *name == last).unwrap_or("other")
}

/// A failed call has its code in the head of the answer, since nothing follows it; a good one ends with trailers.
fn code(headers: &http::HeaderMap) -> &'static str {
    let Some(value) = headers.get("grpc-status") else { return "OK" };
    match Code::from_bytes(value.as_bytes()) {
        Code::Ok => "OK",
        Code::Cancelled => "Cancelled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
