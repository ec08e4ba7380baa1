//! Chunks on their way: each in one window only, with everyone who waits for it.
//!
//! The lock is held for look-ups only, never across I/O or an await.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use estargz::ChunkId;
use tokio::sync::oneshot;

use super::window::{Member, Window};
use crate::{
    Class, ReadError,
    decode::MemberJob,
    sync::{Mutex, MutexGuard},
};

/// What became of a chunk that was waited for.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// It is in the content file.
    Stored,
    /// It was verified but could not be stored.
    Held(Bytes),
    /// It cannot be had now.
    Failed(ReadError),
}

/// A promise of an [`Outcome`].
pub(crate) type Waiting = oneshot::Receiver<Outcome>;

/// The chunks of one layer that are on their way.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<Table>);

/// A table with room for more than this many chunks gives its memory back when it is empty: a window of small files has
/// thousands, and there is a table for each layer.
const KEPT_ROOM: usize = 64;

/// See [`InFlight`].
#[derive(Debug, Default)]
pub(crate) struct Table {
    chunks: HashMap<ChunkId, Pending>,
    tracked: Tracked,
}

/// How many chunks are on their way, over all layers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracked(Arc<AtomicUsize>);

#[derive(Debug)]
struct Pending {
    window: Arc<Window>,
    /// Where it is decoded, once its bytes are here.
    job: Weak<MemberJob>,
    waiters: Vec<oneshot::Sender<Outcome>>,
}

/// What somebody who joined a chunk on its way has to know.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) waiting: Waiting,
    pub(crate) window: Arc<Window>,
    /// What the window's class was before.
    pub(crate) class: Class,
    /// The decoding that is to be hurried up.
    pub(crate) job: Option<Arc<MemberJob>>,
}

// === impl Tracked ===

impl Tracked {
    /// What is taken note of for this many, some 200 bytes each, is 3 MiB.
    const MOST: usize = 16_000;
    /// A new window takes one in this many of those that are left.
    const SHARE: usize = 3;
    /// A new window may always have this many.
    pub(crate) const LEAST: usize = 256;

    /// How many chunks a new window may have: the more are on their way, the fewer. One that others wait behind should be
    /// short anyway.
    pub(crate) fn room(&self) -> u32 {
        let left = Self::MOST.saturating_sub(self.0.load(Relaxed));
        (left / Self::SHARE).max(Self::LEAST) as u32
    }

    /// Whether so much is on its way that nothing should be asked for that nobody waits for.
    pub(crate) fn is_full(&self) -> bool {
        self.0.load(Relaxed) >= Self::MOST
    }
}

// === impl InFlight ===

impl InFlight {
    /// A table whose chunks are counted in `tracked`.
    pub(crate) fn new(tracked: &Tracked) -> Self {
        Self(Mutex::new(Table { chunks: HashMap::new(), tracked: tracked.clone() }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock()
    }

    /// A chunk has come to an end: tells everyone who waits. `outcome` is not asked for if nobody does.
    pub(crate) fn settle(&self, chunk: ChunkId, outcome: impl FnOnce() -> Outcome) {
        let pending = self.0.lock().remove(chunk);
        if let Some(pending) = pending {
            tell(pending.waiters, outcome);
        }
    }

    /// The chunks of `window` that no decoding has taken over will not come.
    pub(crate) fn abandon(&self, window: &Arc<Window>, error: &ReadError) {
        for chunk in window.all_chunks() {
            let pending = {
                let mut table = self.0.lock();
                let ours = table.of(chunk, window).is_some_and(|pending| pending.job.strong_count() == 0);
                if ours { table.remove(chunk) } else { None }
            };
            if let Some(pending) = pending {
                tell(pending.waiters, || Outcome::Failed(error.clone()));
            }
        }
    }

    /// Settles `chunk` only if it still belongs to `window`.
    pub(crate) fn settle_of(&self, chunk: ChunkId, window: &Arc<Window>, outcome: impl FnOnce() -> Outcome) {
        let pending = {
            let mut table = self.0.lock();
            if table.of(chunk, window).is_some() { table.remove(chunk) } else { None }
        };
        if let Some(pending) = pending {
            tell(pending.waiters, outcome);
        }
    }

    /// The bytes of `member` are here and `job` decodes them. Says how urgent that is: read-ahead of a demand window that
    /// nobody waits for is not demand.
    pub(crate) fn decoding(&self, member: &Member, window: &Arc<Window>, job: &Arc<MemberJob>) -> Class {
        let mut table = self.0.lock();
        for &chunk in &member.chunks {
            if let Some(pending) = table.of(chunk, window) {
                pending.job = Arc::downgrade(job);
            }
        }
        // Also by those who wait for the window that this one is a hedge for.
        if table.is_waited_for(&member.chunks) {
            Class::Demand
        } else if member.passing {
            Class::Background
        } else {
            window.class_at(member.span.start).max(Class::ReadAhead)
        }
    }

    /// Moves `chunks` from one window to another, with everyone who waits. Those that are not of the old window any more
    /// stay. Says whether any moved.
    pub(crate) fn move_over(&self, chunks: &[ChunkId], from: &Arc<Window>, to: &Arc<Window>) -> bool {
        let mut table = self.0.lock();
        let mut moved = false;
        for &chunk in chunks {
            if let Some(pending) = table.of(chunk, from) {
                pending.window = Arc::clone(to);
                pending.job = Weak::new();
                moved = true;
            }
        }
        moved
    }

    /// Which of `chunks` come with `window` and are not being decoded yet.
    pub(crate) fn not_received(&self, chunks: &[ChunkId], window: &Arc<Window>) -> Vec<ChunkId> {
        let mut table = self.0.lock();
        let mut waits =
            |id: ChunkId| table.of(id, window).is_some_and(|pending| pending.job.strong_count() == 0);
        chunks.iter().copied().filter(|&id| waits(id)).collect()
    }

    /// Number of chunks on their way.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().chunks.len()
    }
}

// === impl Table ===

impl Table {
    pub(crate) fn has(&self, chunk: ChunkId) -> bool {
        self.chunks.contains_key(&chunk)
    }

    /// Takes the chunks of a new window.
    pub(crate) fn insert(&mut self, window: &Arc<Window>) {
        window.chunks().for_each(|chunk| self.add(chunk, window));
    }

    /// A chunk comes with `window`, unless it is on its way.
    pub(crate) fn add(&mut self, chunk: ChunkId, window: &Arc<Window>) {
        let (window, job, waiters) = (Arc::clone(window), Weak::new(), Vec::new());
        self.chunks.entry(chunk).or_insert_with(|| {
            self.tracked.0.fetch_add(1, Relaxed);
            Pending { window, job, waiters }
        });
    }

    /// Waits for a chunk that is on its way.
    pub(crate) fn join(&mut self, chunk: ChunkId) -> Option<Joined> {
        let pending = self.chunks.get_mut(&chunk)?;
        pending.waiters.retain(|waiter| !waiter.is_closed());
        let (waiter, waiting) = oneshot::channel();
        pending.waiters.push(waiter);
        let class = pending.window.class();
        Some(Joined { waiting, window: Arc::clone(&pending.window), class, job: pending.job.upgrade() })
    }

    /// Whether anybody waits for one of `chunks`, with whatever window they come.
    fn is_waited_for(&self, chunks: &[ChunkId]) -> bool {
        let pending = chunks.iter().filter_map(|chunk| self.chunks.get(chunk));
        pending.flat_map(|pending| &pending.waiters).any(|waiter| !waiter.is_closed())
    }

    /// For how many chunks it has memory.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.chunks.capacity()
    }

    fn remove(&mut self, chunk: ChunkId) -> Option<Pending> {
        let removed = self.chunks.remove(&chunk)?;
        self.tracked.0.fetch_sub(1, Relaxed);
        if self.chunks.is_empty() && self.chunks.capacity() > KEPT_ROOM {
            self.chunks = HashMap::new();
        }
        Some(removed)
    }

    fn of(&mut self, chunk: ChunkId, window: &Arc<Window>) -> Option<&mut Pending> {
        self.chunks.get_mut(&chunk).filter(|pending| Arc::ptr_eq(&pending.window, window))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.tracked.0.fetch_sub(self.chunks.len(), Relaxed);
    }
}

fn tell(waiters: Vec<oneshot::Sender<Outcome>>, outcome: impl FnOnce() -> Outcome) {
    if waiters.iter().all(oneshot::Sender::is_closed) {
        return;
    }
    let outcome = outcome();
    for waiter in waiters {
        // Whoever gave up waiting does not want to know.
        let _ = waiter.send(outcome.clone());
    }
}
