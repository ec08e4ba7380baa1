//! What a layer has done.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::Class;

/// Figures of one layer since it was attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerStats {
    /// Chunks that the layer has.
    pub chunks_total: u64,
    /// Chunks that are here, verified.
    pub chunks_present: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Bytes of files that are here, verified.
    pub bytes_present: u64,
    /// Bytes that the layer's files take on disk.
    pub disk_bytes: u64,
    /// Reads that were answered from the content file.
    pub hits: u64,
    /// Reads that had to wait.
    pub misses: u64,
    /// Bytes of the blob received for demand and read-ahead.
    pub demand_bytes_fetched: u64,
    /// Bytes of the blob received for planned prefetch, unless somebody waited for them.
    pub planned_bytes_fetched: u64,
    /// Bytes of the blob received for the background.
    pub background_bytes_fetched: u64,
    /// Ranges asked of the source.
    pub requests: u64,
    /// Those of them that were asked for planned prefetch.
    pub planned_requests: u64,
    /// Those of them that were asked for the background.
    pub background_requests: u64,
    /// Members whose bytes did not match their digests.
    pub verify_failures: u64,
    /// Chunks on disk that were found to be damaged, and were dropped.
    pub damaged_chunks: u64,
    /// The last thing that went wrong, with its causes.
    pub last_error: Option<String>,
}

/// Where a layer counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) demand_bytes: AtomicU64,
    pub(crate) planned_bytes: AtomicU64,
    pub(crate) background_bytes: AtomicU64,
    requests: AtomicU64,
    planned_requests: AtomicU64,
    background_requests: AtomicU64,
    pub(crate) verify_failures: AtomicU64,
    pub(crate) damaged: AtomicU64,
    last_error: Mutex<Option<String>>,
}

// === impl Counters ===

impl Counters {
    /// Adds a request of `class`.
    pub(crate) fn asked(&self, class: Class) {
        self.requests.fetch_add(1, Relaxed);
        match class {
            Class::Demand | Class::ReadAhead => {}
            Class::Prefetch => drop(self.planned_requests.fetch_add(1, Relaxed)),
            Class::Background => drop(self.background_requests.fetch_add(1, Relaxed)),
        }
    }

    /// Adds bytes received in a request of `class`.
    pub(crate) fn received(&self, class: Class, bytes: u64) {
        let counter = match class {
            Class::Demand | Class::ReadAhead => &self.demand_bytes,
            Class::Prefetch => &self.planned_bytes,
            Class::Background => &self.background_bytes,
        };
        counter.fetch_add(bytes, Relaxed);
    }

    /// Remembers what went wrong.
    pub(crate) fn failed(&self, error: &dyn std::error::Error) {
        *self.last_error.lock() = Some(chain(error));
    }

    /// The counters' part of the figures.
    pub(crate) fn stats(&self) -> LayerStats {
        LayerStats {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            demand_bytes_fetched: self.demand_bytes.load(Relaxed),
            planned_bytes_fetched: self.planned_bytes.load(Relaxed),
            background_bytes_fetched: self.background_bytes.load(Relaxed),
            requests: self.requests.load(Relaxed),
            planned_requests: self.planned_requests.load(Relaxed),
            background_requests: self.background_requests.load(Relaxed),
            verify_failures: self.verify_failures.load(Relaxed),
            damaged_chunks: self.damaged.load(Relaxed),
            last_error: self.last_error.lock().clone(),
            ..LayerStats::default()
        }
    }
}

/// The error and what it was caused by, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
