//! The connection to the image service: HTTP/2 on a unix socket, made when it is needed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::{body::Body, extract::Request};
use hyper::{
    Response,
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::UnixStream, sync::Mutex, time::timeout};
use tonic::Status;

/// How long connecting may take: a socket of this machine answers at once or not at all.
const CONNECT: Duration = Duration::from_secs(10);
/// The heads and trailers of answers: a message about a failed pull is longer than hyper's own limit.
const MAX_HEAD: u32 = 1 << 20;

/// Where calls are passed on to.
#[derive(Debug)]
pub(super) struct Upstream {
    path: PathBuf,
    /// One connection carries all calls.
    connection: Mutex<Option<SendRequest<Body>>>,
}

// === impl Upstream ===

impl Upstream {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), connection: Mutex::default() }
    }

    /// Passes a call on. One that could not even be sent, since containerd was started anew, is sent again.
    pub(super) async fn send(&self, request: Request) -> Result<Response<Incoming>, Status> {
        let mut failure = match self.connection().await?.try_send_request(request).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        if let Some(request) = failure.take_message() {
            *self.connection.lock().await = None;
            match self.connection().await?.try_send_request(request).await {
                Ok(answer) => return Ok(answer),
                Err(again) => failure = again,
            }
        }
        Err(self.unavailable(&failure.into_error()))
    }

    async fn connection(&self) -> Result<SendRequest<Body>, Status> {
        let mut connection = self.connection.lock().await;
        if let Some(known) = connection.as_ref().filter(|known| !known.is_closed()) {
            return Ok(known.clone());
        }
        let new = timeout(CONNECT, self.connect())
            .await
            .map_err(|_| self.unavailable(&"it does not answer"))?
            .map_err(|error| self.unavailable(&error))?;
        *connection = Some(new.clone());
        Ok(new)
    }

    async fn connect(&self) -> Result<SendRequest<Body>, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TokioIo::new(UnixStream::connect(&self.path).await?);
        let mut builder = Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.max_header_list_size(MAX_HEAD).handshake(stream).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the image service ended");
            }
        });
        Ok(sender)
    }

    fn unavailable(&self, why: &dyn std::fmt::Display) -> Status {
        let path = self.path.display();
        Status::unavailable(format!("cannot reach the CRI image service at {path}: {why}"))
    }
}
