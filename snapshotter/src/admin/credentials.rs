//! `/credentials?image=NAME`: which sources of credentials would be asked for an image, in their order, and what they
//! know. Never a secret. Asking may run programs, as it does for a read.

use std::sync::Arc;

use axum::{
    Json, Router,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use registry::{CredentialQuery, CredentialSource, Knowledge, Reference, SourceReport, explain_credentials};
use serde::{Deserialize, Serialize};

use super::answer::parameter;

/// What one source knows for an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialStatus {
    /// The source.
    pub source: String,
    /// What kinds of credentials it has, in the order in which they are tried.
    pub known: Vec<String>,
    /// Why it could not be asked, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Where credentials come from, in the order in which they are asked.
pub type Sources = Arc<[Arc<dyn CredentialSource>]>;

// === impl CredentialStatus ===

impl From<SourceReport> for CredentialStatus {
    fn from(SourceReport { source, knowledge }: SourceReport) -> Self {
        let (known, failure) = match knowledge {
            Knowledge::Nothing => (Vec::new(), None),
            Knowledge::Known(kinds) => (kinds, None),
            Knowledge::Failed(why) => (Vec::new(), Some(why)),
        };
        Self { source, known, failure }
    }
}

pub(super) fn pages(sources: Sources) -> Router {
    let page = move |uri: Uri| {
        let sources = Arc::clone(&sources);
        async move { credentials(&sources, &uri).await }
    };
    Router::new().route("/credentials", get(page))
}

async fn credentials(sources: &Sources, uri: &Uri) -> Response {
    let reference = match parameter(uri, "image").map(|image| image.parse::<Reference>()) {
        Some(Ok(reference)) => reference,
        Some(Err(error)) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        None => {
            return (StatusCode::BAD_REQUEST, "name the image: /credentials?image=NAME").into_response();
        }
    };
    let query = CredentialQuery { host: reference.host(), repository: reference.repository() };
    let reports = explain_credentials(sources, query).await;
    Json(reports.into_iter().map(CredentialStatus::from).collect::<Vec<_>>()).into_response()
}

#[cfg(test)]
mod tests {
    use registry::{Credentials, Secret, StaticCredentials};

    use super::*;

    #[tokio::test]
    async fn each_source_is_told_in_its_order_without_the_secret() {
        let password = Credentials::Password { username: "me".into(), password: Secret::new("planted") };
        let hosts = vec![("example.com".to_owned(), password)];
        let fixed: Arc<dyn CredentialSource> = Arc::new(StaticCredentials { hosts });
        let sources: Sources = Arc::new([fixed]);
        let ask = |query: &'static str| {
            let sources = Arc::clone(&sources);
            async move {
                let answer = credentials(&sources, &Uri::from_static(query)).await;
                let status = answer.status().as_u16();
                let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
                (status, String::from_utf8(body.to_vec()).unwrap())
            }
        };
        let (status, body) = ask("/credentials?image=example.com/a:1").await;
        assert_eq!(status, 200);
        let told: Vec<CredentialStatus> = serde_json::from_str(&body).unwrap();
        assert_eq!(told[0].source, "static configuration");
        assert_eq!(told[0].known, ["password of me"]);
        assert!(!body.contains("planted"));
        let (_, body) = ask("/credentials?image=example.org/a").await;
        assert!(serde_json::from_str::<Vec<CredentialStatus>>(&body).unwrap()[0].known.is_empty());
        for query in ["/credentials", "/credentials?image=NOT%20AN%20IMAGE"] {
            assert_eq!(ask(query).await.0, 400);
        }
    }
}
