//! What people can ask a running daemon: HTTP with JSON on a unix socket that only its user may connect to.
//!
//! `/status` is a [`Status`], `/metrics` Prometheus' text, `/profile?image=NAME` a [`Document`], `/healthz` says `ok` while
//! the daemon answers; `/credentials?image=NAME` tells who would be asked for credentials; `/cache` and what is below it are
//! about the disk that layers take. `metrics_address` serves `/metrics` alone, by TCP.

mod answer;
mod cache;
mod client;
mod credentials;
mod status;

use std::{future::Future, io, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::{TcpListener, UnixListener};

pub use cache::Cache;
pub use client::{
    AskError, ask_cache, ask_credentials, ask_metrics, ask_profile, ask_prune, ask_status, ask_verify,
};
pub use credentials::{CredentialStatus, Sources};
pub use status::{
    CacheStatus, CachedLayer, FilesStatus, HostStatus, HostsStatus, ImageLayerStatus, ImageStatus,
    LayerStatus, MemoryStatus, OutcomeStatus, PlaceStatus, Pruned, RegistryStatus, Status, Verified,
};

use self::answer::{answer, parameter};
use crate::{metrics::Metrics, profile::Document};

/// The name of the admin socket, in the directory of the socket for containerd.
pub const SOCKET_NAME: &str = "admin.sock";

/// Makes a status when somebody asks.
pub type Reporter = Arc<dyn Fn() -> Status + Send + Sync>;

/// Tells what is known of the image with a name, or why nothing is.
pub type Profiler = Arc<dyn Fn(&str) -> Result<Document, String> + Send + Sync>;

/// Serves the admin socket until `shutdown` is ready. `metrics` are none if the configuration says so.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: UnixListener,
    reporter: Reporter,
    profiler: Profiler,
    cache: Arc<dyn Cache>,
    sources: Sources,
    metrics: Option<Metrics>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let status = move || {
        let reporter = Arc::clone(&reporter);
        answer(move || Ok(reporter()))
    };
    let profile = move |uri: Uri| {
        let profiler = Arc::clone(&profiler);
        async move { profile(&profiler, &uri).await }
    };
    let router = Router::new().route("/status", get(status)).route("/profile", get(profile));
    let router = router.route("/healthz", get(|| async { "ok\n" })).merge(credentials::pages(sources));
    axum::serve(listener, router.merge(cache::pages(cache)).merge(pages(metrics)))
        .with_graceful_shutdown(shutdown)
        .await
}

async fn profile(profiler: &Profiler, uri: &Uri) -> Response {
    let Some(image) = parameter(uri, "image") else {
        return (StatusCode::BAD_REQUEST, "name the image: /profile?image=NAME").into_response();
    };
    let profiler = Arc::clone(profiler);
    answer(move || profiler(&image)).await
}

/// Serves `/metrics` by TCP until `shutdown` is ready.
///
/// # Errors
/// The listener failed.
pub async fn serve_metrics(
    listener: TcpListener,
    metrics: Metrics,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, pages(Some(metrics))).with_graceful_shutdown(shutdown).await
}

fn pages(metrics: Option<Metrics>) -> Router {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let page = move || {
        let metrics = metrics.clone();
        async move {
            match metrics {
                Some(metrics) => ([(header::CONTENT_TYPE, TEXT)], metrics.text()).into_response(),
                None => {
                    (StatusCode::NOT_FOUND, "no_prometheus is set in the configuration\n").into_response()
                }
            }
        }
    };
    Router::new().route("/metrics", get(page))
}
