//! What was asked of each registry, as plain counters.
//!
//! Requests that follow a redirect count for the registry that sent it: the hosts of storage services are
//! chosen by others and could be any number.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of one host; all only grow.
#[derive(Debug, Default)]
pub(crate) struct HostCounters {
    requests: AtomicU64,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    retries: AtomicU64,
    unauthorized: AtomicU64,
    token_requests: AtomicU64,
    redirects: AtomicU64,
    wrong_bytes: AtomicU64,
}

/// The values of a host's counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostStats {
    /// The host (and port) as images name it, or the mirror's own name.
    pub host: String,
    /// HTTP requests sent, redirects and repeated attempts included, token requests not.
    pub requests: u64,
    /// Bytes of bodies received.
    pub bytes_received: u64,
    /// Bytes of bodies sent.
    pub bytes_sent: u64,
    /// Attempts that repeated a failed one or resumed a broken body.
    pub retries: u64,
    /// Answers 401 that led to a new authentication.
    pub unauthorized: u64,
    /// Requests to the host's token service.
    pub token_requests: u64,
    /// Redirects followed.
    pub redirects: u64,
    /// Answers whose bytes were not what they should have been.
    pub wrong_bytes: u64,
}

/// What can be counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    Request,
    Received(u64),
    Sent(u64),
    Retry,
    Unauthorized,
    TokenRequest,
    Redirect,
    WrongBytes,
}

// === impl HostCounters ===

impl HostCounters {
    pub(crate) fn add(&self, count: Count) {
        let (counter, n) = match count {
            Count::Request => (&self.requests, 1),
            Count::Received(n) => (&self.bytes_received, n),
            Count::Sent(n) => (&self.bytes_sent, n),
            Count::Retry => (&self.retries, 1),
            Count::Unauthorized => (&self.unauthorized, 1),
            Count::TokenRequest => (&self.token_requests, 1),
            Count::Redirect => (&self.redirects, 1),
            Count::WrongBytes => (&self.wrong_bytes, 1),
        };
        counter.fetch_add(n, Relaxed);
    }

    pub(crate) fn snapshot(&self, host: &str) -> HostStats {
        HostStats {
            host: host.to_owned(),
            requests: self.requests.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
            retries: self.retries.load(Relaxed),
            unauthorized: self.unauthorized.load(Relaxed),
            token_requests: self.token_requests.load(Relaxed),
            redirects: self.redirects.load(Relaxed),
            wrong_bytes: self.wrong_bytes.load(Relaxed),
        }
    }
}
