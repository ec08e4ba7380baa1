//! The pages about the disk that layers take: `GET /cache`, `POST /cache/prune?keep=BYTES`,
//! `POST /cache/verify?layer=KEY&from=CHUNK`.

use std::sync::Arc;

use super::{
    answer::{answer, parameter},
    status::{CachedLayer, Pruned, Verified},
};
use axum::{
    Router,
    http::Uri,
    routing::{get, post},
};

/// What can be asked about the disk that layers take. All of it may block.
pub trait Cache: Send + Sync + 'static {
    /// All layers on disk.
    fn list(&self) -> Vec<CachedLayer>;

    /// Deletes layers that no snapshot refers to until all layers take no more than `keep` bytes.
    fn prune(&self, keep: u64) -> Pruned;

    /// Looks at some of a layer's chunks again, from the chunk `from` on.
    ///
    /// # Errors
    /// There is no such layer, or a damaged chunk could not be dropped.
    fn verify(&self, layer: &str, from: u32) -> Result<Verified, String>;
}

pub(super) fn pages(cache: Arc<dyn Cache>) -> Router {
    let (list, prune, verify) = (Arc::clone(&cache), Arc::clone(&cache), cache);
    Router::new()
        .route("/cache", get(move || answer(move || Ok(list.list()))))
        .route(
            "/cache/prune",
            post(move |uri: Uri| {
                let keep = parameter(&uri, "keep").map_or(Ok(0), |keep| keep.parse());
                answer(move || Ok(prune.prune(keep.map_err(|_| "keep takes a number of bytes".to_owned())?)))
            }),
        )
        .route(
            "/cache/verify",
            post(move |uri: Uri| {
                let layer = parameter(&uri, "layer").unwrap_or_default();
                let from = parameter(&uri, "from").and_then(|from| from.parse().ok()).unwrap_or(0);
                answer(move || verify.verify(&layer, from))
            }),
        )
}
