//! Noting first accesses, cheaply: a read of chunks that were noted before costs one look at a bit for each.

use std::{
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::{Duration, Instant},
};

use estargz::ChunkId;
use parking_lot::Mutex;

use super::{Access, Profile};

const BITS: u32 = u64::BITS;
/// Layers whose first reads follow one another within this time belong to one start, and share its clock: so the
/// accesses to all layers of an image can be put in one order.
const SAME_START: Duration = Duration::from_secs(10);

/// The recording of one layer, which ends by itself.
#[derive(Debug)]
pub(crate) struct Recorder {
    on: AtomicBool,
    window: Duration,
    /// A bit for each chunk that was noted; none if there is nothing to record.
    seen: Box<[AtomicU64]>,
    /// Added to the times of this recording, which goes on with one that a restart cut off.
    later: u32,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    /// When the start began, and when this layer was first read.
    began: Option<(Instant, Instant)>,
    accesses: Vec<Access>,
    /// How many of them were saved.
    saved: usize,
    /// Whether the end of the recording was saved.
    closed: bool,
}

/// The clock of the starts that go on, shared by all layers.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    clock: Mutex<Option<(Instant, Instant)>>,
    /// When something was read for the first time last.
    latest: Mutex<Option<Instant>>,
}

/// What is to be saved of a recording.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    pub(crate) accesses: Vec<Access>,
    pub(crate) finished: bool,
}

// === impl Recorder ===

impl Recorder {
    /// Records the first accesses to `chunks` chunks until `window` after the first one.
    pub(crate) fn new(chunks: u32, window: Duration, later: u32) -> Self {
        let seen = (0..chunks.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect();
        Self { on: AtomicBool::new(true), window, seen, later, notes: Mutex::default() }
    }

    /// Records nothing.
    pub(crate) fn off() -> Self {
        let on = AtomicBool::new(false);
        Self { on, window: Duration::ZERO, seen: Box::default(), later: 0, notes: Mutex::default() }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Acquire)
    }

    /// `chunks` are read.
    pub(crate) fn note(&self, starts: &Starts, chunks: impl Iterator<Item = ChunkId>) {
        for chunk in chunks.filter(|chunk| self.is_news(*chunk)) {
            self.add(starts, chunk);
        }
    }

    fn is_news(&self, chunk: ChunkId) -> bool {
        let (word, bit) = (self.seen.get((chunk.0 / BITS) as usize), 1 << (chunk.0 % BITS));
        // The plain load first: a word that others only read stays in every processor's cache.
        word.is_some_and(|word| word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0)
    }

    fn add(&self, starts: &Starts, chunk: ChunkId) {
        let now = Instant::now();
        let mut notes = self.notes.lock();
        let (start, first) = *notes.began.get_or_insert_with(|| (starts.begun(now), now));
        if now.duration_since(first) > self.window || notes.accesses.len() >= Profile::MOST_ACCESSES {
            self.on.store(false, Release);
            return;
        }
        *starts.latest.lock() = Some(now);
        let at = u32::try_from(now.duration_since(start).as_millis()).unwrap_or(u32::MAX);
        notes.accesses.push(Access { chunk, at: at.saturating_add(self.later) });
    }

    /// The chunks that were noted.
    pub(crate) fn noted(&self) -> Vec<ChunkId> {
        self.notes.lock().accesses.iter().map(|access| access.chunk).collect()
    }

    /// What was not saved yet, if anything. Ends the recording if its time is over.
    pub(crate) fn unsaved(&self) -> Option<Unsaved> {
        let mut notes = self.notes.lock();
        if notes.began.is_some_and(|(_, first)| first.elapsed() > self.window) {
            self.on.store(false, Release);
        }
        let closes = !notes.closed && !notes.accesses.is_empty() && !self.is_on();
        let accesses = notes.accesses.get(notes.saved..).unwrap_or_default().to_vec();
        if accesses.is_empty() && !closes {
            return None;
        }
        notes.saved = notes.accesses.len();
        notes.closed |= closes;
        Some(Unsaved { accesses, finished: notes.closed })
    }
}

// === impl Starts ===

impl Starts {
    /// When something was read for the first time last.
    pub(crate) fn latest(&self) -> Option<Instant> {
        *self.latest.lock()
    }

    /// A layer was read for the first time at `now`. When the start began that this is part of.
    fn begun(&self, now: Instant) -> Instant {
        let mut latest = self.clock.lock();
        let same = latest.filter(|(_, last)| now.saturating_duration_since(*last) < SAME_START);
        let began = same.map_or(now, |(began, _)| began);
        *latest = Some((began, now));
        began.min(now)
    }
}

#[cfg(test)]
mod tests;
