//! A layer: its files, its source, and what is on its way from one to the other.
//!
//! Reading is in `layer/read.rs`, asking for windows in `layer/miss.rs`, what comes of them in `layer/arrive.rs`,
//! making it last in `layer/unsynced.rs`.

mod ahead;
mod arrive;
mod give_back;
mod given_up;
mod holes;
mod miss;
mod planned;
mod read;
mod recorded;
pub(crate) mod unsynced;
mod verify;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use estargz::{Chunk, ChunkId, IndexError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use crate::{
    BlobSource, LayerIndex, LayerKey, LayerStats,
    engine::Engine,
    fetch::{back_off::BackOff, in_flight::InFlight, reach::Pattern},
    files::LayerFiles,
    stats::Counters,
};
use give_back::GivingBack;
use recorded::Recording;
use unsynced::Unsynced;
pub use verify::Checked;

/// Requests for read-ahead and planned prefetch that one layer has in flight.
const AHEAD_WINDOWS: usize = 8;

/// A layer whose metadata is all here, and whose content is here as far as it was needed.
pub struct Layer {
    key: LayerKey,
    pub(crate) files: LayerFiles,
    pub(crate) engine: Arc<Engine>,
    source: RwLock<Arc<dyn BlobSource>>,
    pub(crate) counters: Counters,
    pub(crate) in_flight: InFlight,
    pub(crate) back_off: BackOff,
    pub(crate) turns: Turns,
    pattern: Mutex<Pattern>,
    planned: Mutex<planned::Planned>,
    unsynced: Unsynced,
    giving_back: GivingBack,
    pub(crate) given_up: given_up::GivenUp,
    recording: Recording,
    /// Reads when [`Self::was_used`] was last asked.
    reads_seen: AtomicU64,
    removed: AtomicBool,
    storage_failing: AtomicBool,
    /// Somebody wants all of the layer to be here.
    pub(crate) completing: AtomicBool,
    pub(crate) in_background: AtomicBool,
}

/// How many requests of a kind a layer may have in flight.
#[derive(Debug)]
pub(crate) struct Turns {
    pub(crate) demand: Semaphore,
    pub(crate) ahead: Semaphore,
}

// === impl Layer ===

impl Layer {
    pub(crate) fn new(
        key: LayerKey,
        files: LayerFiles,
        engine: Arc<Engine>,
        source: Arc<dyn BlobSource>,
    ) -> Arc<Self> {
        let demand = Semaphore::new(engine.config.demand_windows.max(1));
        let recording = Recording::begin(key, &files, &engine);
        Arc::new(Self {
            key,
            recording,
            files,
            in_flight: InFlight::new(&engine.tracked),
            engine,
            source: RwLock::new(source),
            counters: Counters::default(),
            back_off: BackOff::default(),
            turns: Turns { demand, ahead: Semaphore::new(AHEAD_WINDOWS) },
            pattern: Mutex::default(),
            planned: Mutex::default(),
            unsynced: Unsynced::default(),
            giving_back: GivingBack::default(),
            given_up: given_up::GivenUp::default(),
            reads_seen: AtomicU64::new(0),
            removed: AtomicBool::new(false),
            storage_failing: AtomicBool::new(false),
            completing: AtomicBool::new(false),
            in_background: AtomicBool::new(false),
        })
    }

    /// What the layer is kept under.
    pub fn key(&self) -> LayerKey {
        self.key
    }

    /// The layer's metadata.
    pub fn index(&self) -> &LayerIndex {
        &self.files.index
    }

    /// Makes `source` the place that missing bytes come from, from the next request on.
    pub fn set_source(&self, source: Arc<dyn BlobSource>) {
        *self.source.write() = source;
        self.back_off.worked();
        self.given_up.answered();
    }

    pub(crate) fn source(&self) -> Arc<dyn BlobSource> {
        Arc::clone(&self.source.read())
    }

    /// What the layer has done since it was attached, and how much of it is here.
    pub fn stats(&self) -> LayerStats {
        let bytes_total = self.files.index.file_bytes();
        LayerStats {
            chunks_total: self.files.index.chunk_count().into(),
            chunks_present: self.files.chunks.present(),
            bytes_total,
            bytes_present: self.files.chunks.bytes().min(bytes_total),
            disk_bytes: self.files.small_bytes + self.files.content.disk_bytes(),
            ..self.counters.stats()
        }
    }

    /// Whether anything was read since this was last asked.
    pub(crate) fn was_used(&self) -> bool {
        let reads = self.counters.hits.load(Relaxed) + self.counters.misses.load(Relaxed);
        self.reads_seen.swap(reads, Relaxed) != reads
    }

    /// Number of chunks that are on their way.
    pub fn chunks_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn mark_removed(&self) {
        // The files may be opened anew at once: nothing of them is given back any more then.
        let _alone = self.giving_back.alone();
        self.removed.store(true, Release);
    }

    /// Whether all of it is wanted, and it is not gone.
    pub(crate) fn is_wanted_whole(&self) -> bool {
        self.completing.load(Acquire) && !self.is_removed()
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Acquire)
    }

    /// A chunk's places, checked: an index file that was damaged must not lead outside of what it speaks of.
    pub(crate) fn chunk(&self, id: ChunkId) -> Result<Chunk, IndexError> {
        let chunk = self.files.index.chunk(id)?;
        let content_end = chunk.content_offset.checked_add(chunk.len);
        let sound = chunk.member_start < chunk.member_end
            && chunk.member_end <= self.files.index.blob_size()
            && chunk.inner_offset.checked_add(chunk.len).is_some()
            && content_end.is_some_and(|end| end <= self.files.index.content_len());
        if sound { Ok(chunk) } else { Err(IndexError::Damaged { what: "a chunk is outside of its file" }) }
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        // Nobody is left to fetch anything again.
        let _ = self.record();
        self.save_profile();
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("key", &self.key.to_string()).finish_non_exhaustive()
    }
}
