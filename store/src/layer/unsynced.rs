//! Chunks that were written, until they are on disk and recorded.
//!
//! Linux tells a failed write-back once, marks the pages clean and may drop them: the file then reads as before, which
//! is zeros. So after a failed sync nothing is trusted that was not synced before, and what was being written meanwhile
//! is not taken on. Pages that fail and are dropped before the sync that tells of it cannot be told from others.

use std::{
    io,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use estargz::ChunkId;
use parking_lot::Mutex;

use super::Layer;
use crate::{files::Batch, flush::Dirty};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    pub(super) batch: Mutex<Batch>,
    /// Held across a sync: the kernel tells an error to one of those who sync.
    pub(super) flushing: Mutex<()>,
    /// How many syncs failed. Changes only with `batch` locked.
    failures: AtomicU64,
    /// The last one failed.
    failing: AtomicBool,
}

/// A write that was begun. It counts only if no sync failed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

// === impl Unsynced ===

impl Unsynced {
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Acquire)
    }
}

// === impl Layer ===

impl Layer {
    /// To be called before a chunk's first byte is written.
    pub(crate) fn begin_write(&self) -> Epoch {
        Epoch(self.unsynced.failures.load(Acquire))
    }

    /// Makes a verified chunk known whose writing began at `epoch`. Says false if it cannot be trusted to be there.
    pub(super) fn add_written(self: &Arc<Self>, id: ChunkId, len: u64, epoch: Epoch) -> bool {
        let limit = self.engine.config.flush_bytes;
        let (first, full) = {
            let mut batch = self.unsynced.batch.lock();
            if self.unsynced.failures.load(Relaxed) != epoch.0 {
                return false;
            }
            if !self.files.chunks.add(id, len) {
                return true;
            }
            batch.chunks.push(id.0);
            let before = batch.bytes;
            batch.bytes += len;
            (batch.chunks.len() == 1, before < limit && batch.bytes >= limit)
        };
        if first || full {
            self.engine.flusher.notify(Dirty { layer: Arc::downgrade(self), urgent: full });
        }
        true
    }

    /// Syncs what was verified and records it, so that it is there after a crash. Blocks; done by itself every
    /// [`flush_interval`](crate::StoreConfig::flush_interval).
    pub fn flush(self: &Arc<Self>) {
        if self.record().is_err() && self.completing.load(Acquire) {
            self.start_background();
        }
    }

    /// Does what [`Self::flush`] does. An error means that chunks are missing again.
    pub(super) fn record(&self) -> io::Result<()> {
        let _alone = self.unsynced.flushing.lock();
        let batch = std::mem::take(&mut *self.unsynced.batch.lock());
        if batch.chunks.is_empty() || self.is_removed() {
            return Ok(());
        }
        if let Err(error) = self.files.content.sync() {
            self.distrust_unsynced(batch);
            self.counters.failed(&error);
            tracing::error!(layer = %self.key(), %error, "cannot sync the content file, fetching again what was not synced");
            return Err(error);
        }
        self.unsynced.failing.store(false, Release);
        if let Err(error) = self.files.chunks.record(&batch) {
            tracing::error!(layer = %self.key(), %error, "cannot record what was fetched, it will be fetched again");
        }
        if self.engine.config.drop_page_cache
            && let Err(error) = self.files.content.drop_pages()
        {
            tracing::debug!(layer = %self.key(), %error, "cannot drop the page cache of the content");
        }
        Ok(())
    }

    /// Forgets the chunks of `batch`, and those that came while it was being synced.
    fn distrust_unsynced(&self, batch: Batch) {
        // Held to the end: nobody adds one of them again before it is removed.
        let mut later = self.unsynced.batch.lock();
        self.unsynced.failing.store(true, Release);
        self.unsynced.failures.fetch_add(1, Release);
        let came_later = std::mem::take(&mut later.chunks);
        later.bytes = 0;
        for id in batch.chunks.into_iter().chain(came_later).map(ChunkId) {
            let len = self.chunk(id).map_or(0, |chunk| chunk.len);
            self.files.chunks.remove(id, len);
        }
    }
}
