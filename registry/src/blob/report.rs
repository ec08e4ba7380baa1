//! How a blob was read last, for people: never a secret, never a signed URL.

use std::sync::Arc;

use parking_lot::Mutex;
use url::Url;

use super::Wanted;
use crate::{
    auth::{Access, Scope},
    endpoint::Endpoint,
    exchange::{Answer, same_origin},
};

/// How a blob was read last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobReport {
    /// The host that was asked.
    pub host: String,
    /// The host (and port) that it sent us on to.
    pub redirect: Option<String>,
    /// Whether it sends a part when a part is asked for; nothing if that was not seen.
    pub ranges: Option<bool>,
    /// The status of the last answer.
    pub status: u16,
    /// With what the host let us read.
    pub access: Access,
}

/// What was seen of a blob's answers.
#[derive(Debug, Default)]
pub(super) struct Observed(Mutex<Option<Last>>);

#[derive(Debug)]
struct Last {
    endpoint: Arc<Endpoint>,
    redirect: Option<String>,
    ranges: Option<bool>,
    status: u16,
}

// === impl Observed ===

impl Observed {
    /// `endpoint` was asked for `wanted`, and this came.
    pub(super) fn note(&self, endpoint: &Arc<Endpoint>, wanted: Wanted, answer: &Answer) {
        let status = answer.status().as_u16();
        let ranges = match status {
            206 => Some(true),
            200 if wanted != Wanted::Whole => Some(false),
            _ => None,
        };
        let url = answer.body.url();
        let redirect = (!same_origin(url, &endpoint.base)).then(|| authority(url));
        let mut last = self.0.lock();
        let before = last.as_ref().filter(|last| Arc::ptr_eq(&last.endpoint, endpoint));
        let ranges = ranges.or_else(|| before.and_then(|last| last.ranges));
        *last = Some(Last { endpoint: endpoint.clone(), redirect, ranges, status });
    }

    /// How the blob of `repository` was read last; nothing if it was not.
    pub(super) fn report(&self, repository: &str) -> Option<BlobReport> {
        let last = self.0.lock();
        let Last { endpoint, redirect, ranges, status } = last.as_ref()?;
        Some(BlobReport {
            host: endpoint.name.clone(),
            redirect: redirect.clone(),
            ranges: *ranges,
            status: *status,
            access: endpoint.auth.access(&Scope::pull(repository)),
        })
    }
}

/// The host and port, without what may be a signature.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
