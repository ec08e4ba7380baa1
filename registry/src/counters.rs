//! What was asked of each registry, as plain counters.
//!
//! Requests that follow a redirect count for the registry that sent it: the hosts of storage services are
//! chosen by others and could be any number.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::credentials::SourceKind;

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
    refreshes: AtomicU64,
    refreshes_failed: AtomicU64,
    logins: [LoginCounters; SourceKind::ALL.len()],
}

/// What was counted of the logins of one class of sources.
#[derive(Debug, Default)]
struct LoginCounters {
    used: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
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
    /// Searches of the sources of credentials that found an authorization.
    pub refreshes: u64,
    /// Searches that found none.
    pub refreshes_failed: u64,
    /// What logins came to, by the class of their source.
    pub logins: Vec<(SourceKind, LoginStats)>,
}

/// What logins of one class of sources came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoginStats {
    /// Authorizations that were got with them.
    pub used: u64,
    /// Logins that a registry or its token service refused.
    pub refused: u64,
    /// Times that a source could not be asked.
    pub failed: u64,
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
    /// A search for an authorization ended, with one or without.
    Refresh(bool),
    /// A login was good for an authorization.
    Used(SourceKind),
    /// A login was refused.
    Refused(SourceKind),
    /// A source could not be asked.
    Failed(SourceKind),
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
            Count::Refresh(true) => (&self.refreshes, 1),
            Count::Refresh(false) => (&self.refreshes_failed, 1),
            Count::Used(kind) => (&self.logins[kind as usize].used, 1),
            Count::Refused(kind) => (&self.logins[kind as usize].refused, 1),
            Count::Failed(kind) => (&self.logins[kind as usize].failed, 1),
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
            refreshes: self.refreshes.load(Relaxed),
            refreshes_failed: self.refreshes_failed.load(Relaxed),
            logins: SourceKind::ALL
                .into_iter()
                .zip(self.logins.iter().map(LoginCounters::snapshot))
                .collect(),
        }
    }
}

// === impl LoginCounters ===

impl LoginCounters {
    fn snapshot(&self) -> LoginStats {
        LoginStats {
            used: self.used.load(Relaxed),
            refused: self.refused.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}
