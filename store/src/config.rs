//! Settings of a store.

use std::{path::PathBuf, thread, time::Duration};

/// How a [`Store`](crate::Store) works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Directory of the daemon; layers are kept in `layers` under it.
    pub root: PathBuf,
    /// Most bytes of chunks that are received or decoded at one time, over all layers.
    pub memory_budget: u64,
    /// Threads that decode what is waited for.
    pub decode_threads: usize,
    /// Threads that decode the background's share, at idle priority. Without them it is decoded when it is read.
    pub idle_threads: usize,
    /// A read that cannot be served within this time fails.
    pub read_timeout: Duration,
    /// Whether [`Layer::start_background`](crate::Layer::start_background) does anything.
    pub background: bool,
    /// Requests of full length that the background has in flight, over all layers; of short ones up to twice as many.
    pub background_windows: usize,
    /// Bytes of the blob that the background asks for at once.
    pub background_window: u64,
    /// Fewest bytes of the blob that a miss asks for, unless less is missing.
    pub min_window: u64,
    /// Most bytes of the blob that a miss asks for, unless one member is longer.
    pub max_window: u64,
    /// Requests for demand that one layer has in flight; further ones wait, those of other layers do not.
    pub demand_windows: usize,
    /// How long verified chunks stay unrecorded at most: after a crash they are fetched again.
    pub flush_interval: Duration,
    /// For how long after the first read of a layer its reads are recorded; zero records nothing.
    pub record: Duration,
    /// Bytes of all profiles that are kept, those of deleted layers too.
    pub profile_bytes: u64,
    /// Verified bytes that are recorded without waiting for [`Self::flush_interval`].
    pub flush_bytes: u64,
    /// Whether content that was recorded leaves the page cache. The FUSE mount's own pages stay.
    pub drop_page_cache: bool,
}

// === impl StoreConfig ===

impl StoreConfig {
    /// The defaults, under `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..Self::default() }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/var/lib/starling"),
            memory_budget: 20 << 20,
            decode_threads: thread::available_parallelism().map_or(2, usize::from),
            idle_threads: thread::available_parallelism().map_or(2, usize::from),
            read_timeout: Duration::from_secs(60),
            background: true,
            background_windows: 2,
            background_window: 4 << 20,
            min_window: 128 << 10,
            max_window: 8 << 20,
            demand_windows: 32,
            record: Duration::from_secs(180),
            profile_bytes: 64 << 20,
            flush_interval: Duration::from_secs(2),
            flush_bytes: 64 << 20,
            drop_page_cache: false,
        }
    }
}
