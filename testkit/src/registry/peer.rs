//! How peer-to-peer mirrors want to be asked: they serve many registries, and refuse who does not say which one is meant.

use http::{Response, StatusCode, request::Parts};
use url::form_urlencoded;

use super::body::{self, Body};

/// The kinds of mirrors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Peer {
    /// None: a registry.
    #[default]
    None,
    /// As Spegel: the registry's name in `ns`.
    Spegel {
        /// The registry.
        registry: String,
    },
    /// As Dragonfly's client: the registry's address in a header.
    Dragonfly {
        /// The address, with its scheme.
        registry: String,
    },
}

// === impl Peer ===

impl Peer {
    /// `None` when the request may go on, else the answer that refuses it.
    pub(super) fn refuse(&self, request: &Parts) -> Option<Response<Body>> {
        let (told, status) = match self {
            Self::None => return None,
            Self::Spegel { registry } => {
                let query = request.uri.query().unwrap_or("").as_bytes();
                let mut parameters = form_urlencoded::parse(query);
                (parameters.any(|(key, value)| key == "ns" && value == *registry), StatusCode::NOT_FOUND)
            }
            Self::Dragonfly { registry } => {
                let header = request.headers.get("x-dragonfly-registry");
                (header.is_some_and(|value| value == registry), StatusCode::BAD_REQUEST)
            }
        };
        (!told).then(|| body::empty(status))
    }
}
