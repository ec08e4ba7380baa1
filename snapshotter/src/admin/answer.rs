//! How requests to the admin socket are read and answered: work that may block is done where it may.

use axum::{
    Json,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::crash::told;

/// The value of a parameter in the address.
pub(super) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query().unwrap_or_default();
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    parameters.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// What `work` gives, or 404 with the reason why it gives nothing.
pub(super) async fn answer<T: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(reason)) => (StatusCode::NOT_FOUND, reason).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, told(&error)).into_response(),
    }
}
