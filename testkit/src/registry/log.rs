//! The log of requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Which of the registry's two hosts a request reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The registry itself.
    Registry,
    /// The host that redirects point to.
    Cdn,
}

/// One request and how it was answered.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// Which host was asked.
    pub listener: Listener,
    /// `GET`, `HEAD`, …
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `Authorization` header's scheme.
    pub authorization: Option<String>,
    /// The answer's status; 0 when there was none.
    pub status: u16,
    /// Bytes of the body that were handed to the connection.
    pub bytes_sent: u64,
    /// When it arrived, since the registry's start.
    pub at: Duration,
}

impl RequestRecord {
    /// Whether it asked for a blob's bytes.
    pub fn is_blob(&self) -> bool {
        self.method == "GET" && (self.path.contains("/blobs/") || self.path.starts_with("/cdn/"))
    }
}

/// One request in the log; its answer is added while it is sent.
#[derive(Debug, Clone)]
pub(super) struct Entry(Arc<EntryState>);

#[derive(Debug)]
struct EntryState {
    record: RequestRecord,
    status: AtomicU64,
    bytes_sent: AtomicU64,
}

/// The requests so far.
#[derive(Debug)]
pub(super) struct Log {
    started: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), entries: Mutex::default() }
    }

    pub(super) fn add(&self, mut record: RequestRecord) -> Entry {
        record.at = self.started.elapsed();
        let entry =
            Entry(Arc::new(EntryState { record, status: AtomicU64::new(0), bytes_sent: AtomicU64::new(0) }));
        self.entries.lock().push(entry.clone());
        entry
    }

    pub(super) fn records(&self) -> Vec<RequestRecord> {
        self.entries.lock().iter().map(Entry::record).collect()
    }

    pub(super) fn bytes_sent(&self) -> u64 {
        self.entries.lock().iter().map(|entry| entry.0.bytes_sent.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn clear(&self) {
        self.entries.lock().clear();
    }
}

impl Entry {
    pub(super) fn answered(&self, status: u16) {
        self.0.status.store(u64::from(status), Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.0.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }

    fn record(&self) -> RequestRecord {
        RequestRecord {
            status: u16::try_from(self.0.status.load(Ordering::Relaxed)).unwrap_or(0),
            bytes_sent: self.0.bytes_sent.load(Ordering::Relaxed),
            ..self.0.record.clone()
        }
    }
}
