//! A Kubernetes cluster with one image pull secret, as far as the daemon asks it.

use std::{collections::HashMap, time::Duration};

use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode, Uri, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The cluster's address; it lets in who has `token`.
pub(crate) async fn start(token: &str, docker_config: &Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (token, secret) = (format!("Bearer {token}"), STANDARD.encode(docker_config.to_string()));
    let secret = json!({
        "metadata": { "namespace": "a", "name": "b", "resourceVersion": "1" },
        "data": { ".dockerconfigjson": secret },
    });
    let router = Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
        let allowed = headers.get(AUTHORIZATION).is_some_and(|sent| *sent == token);
        let secret = secret.clone();
        async move {
            if !allowed {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            let query = uri.query().unwrap_or_default().as_bytes();
            answer(&url::form_urlencoded::parse(query).into_owned().collect(), &secret).await
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn answer(query: &HashMap<String, String>, secret: &Value) -> Response {
    if query.contains_key("watch") {
        // Nothing changes.
        tokio::time::sleep(Duration::from_secs(1)).await;
        return StatusCode::OK.into_response();
    }
    let newer = query.get("fieldSelector").is_some_and(|which| which.ends_with("dockerconfigjson"));
    let items = if newer { vec![secret] } else { Vec::new() };
    let metadata = json!({ "resourceVersion": "1" });
    Json(json!({ "kind": "SecretList", "metadata": metadata, "items": items })).into_response()
}
