//! Planned prefetch: chunks that will be needed, in the order in which they will be.
//!
//! A plan has the layers of one image. Their chunks are taken in the order of the plan's time, over all layers,
//! together with those neighbours in the blob that the plan has too. Several requests are in flight, so many that the
//! link is full and no more: what a program waits for must not queue up behind what it may wait for later. Demand joins
//! what is in flight and asks by itself for what is not. While layers are being opened no window is begun.
//!
//! A plan that an earlier start made knows what this one needs, so that the background, which could only be in the
//! way of the program's processor and link, waits until the start is over: `hold.rs`.

mod hold;
mod queue;

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use estargz::ChunkId;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};

use self::{
    hold::{Again, Begun},
    queue::Queue,
};
use crate::{
    Access, Layer, Store,
    fetch::{
        receive::receive,
        window::{LONGEST_GAP, Window},
    },
    profile::Book,
};

/// How many windows are in flight at least, so that the next one is asked for before one ends, and at most.
const WINDOWS: RangeInclusive<usize> = 2..=6;
/// Bytes in flight, in windows: one that is received, and one whose request travels.
const FULL_LINK: u64 = 2;
/// How long a window is: what the link carries in this time, at least and at most so many bytes. Longer ones make fewer
/// requests, shorter ones bring sooner what is wanted first.
const WINDOW: Duration = Duration::from_millis(160);
const WINDOW_LENGTHS: RangeInclusive<u64> = 1 << 20..=4 << 20;
/// What is received without being wanted rather than making another request: what the link carries in this time, at
/// most so many bytes.
const GAP: Duration = Duration::from_millis(10);
const LONGEST_PLANNED_GAP: u64 = 256 << 10;
/// Opening layers goes first for so long: one that hangs must not stop every plan.
const OPENING: Duration = Duration::from_secs(5);
/// A plan whose windows all hang for so long lets the background go on.
const STALL: Duration = Duration::from_secs(1);

/// The image that a plan is for, and that a profile is of. Layers with the same number are fetched in one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PlanId(pub u64);

/// How windows of a plan are cut, in bytes of the blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    /// About as long as this.
    pub(crate) size: u64,
    /// The most that is received between two members without being wanted.
    pub(crate) gap: u64,
}

/// Follows the plans of all images.
#[derive(Debug, Default)]
pub(crate) struct Planner {
    state: Mutex<State>,
    changed: Notify,
    /// Reads that missed what no exact plan wanted.
    missed: AtomicU64,
    /// Reads that waited, for whatever reason.
    waited: AtomicU64,
    again: Again,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    running: bool,
    /// Since when a plan is followed that an earlier start made.
    exact: Option<Begun>,
    windows: usize,
    bytes: u64,
}

/// A window of a plan on its way.
struct Sent {
    planner: Arc<Planner>,
    bytes: u64,
}

// === impl Planner ===

impl Planner {
    /// Adds `steps` of `layer` to the plan `id`.
    pub(crate) fn add(self: &Arc<Self>, id: PlanId, layer: &Arc<Layer>, steps: Vec<Access>, exact: bool) {
        let start = {
            let mut state = self.state.lock();
            state.queue.add(id, layer, steps, exact);
            if exact {
                state
                    .exact
                    .get_or_insert_with(|| Begun { at: Instant::now(), missed: self.missed.load(Relaxed) });
            }
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            layer.engine.runtime.spawn(Arc::clone(self).run(Arc::clone(layer)));
        }
        self.changed.notify_one();
    }

    /// Ends when there is nothing left to begin. `any` is a layer of the store.
    async fn run(self: Arc<Self>, any: Arc<Layer>) {
        let engine = Arc::clone(&any.engine);
        drop(any);
        // While plans make progress the background does not.
        let mut busy = engine.activity.window();
        busy.resume();
        loop {
            // Whether they ended or took too long makes no difference here.
            let _ = timeout(OPENING, engine.openings.quiet()).await;
            match self.next() {
                Next::Send(layer, window) => {
                    busy.resume();
                    self.send(layer, window);
                }
                Next::Wait => {
                    if timeout(STALL, self.changed.notified()).await.is_err() {
                        busy.pause();
                        self.changed.notified().await;
                    }
                }
                Next::End { exact } => {
                    if let Some(begun) = exact {
                        engine.runtime.clone().spawn(hold::until_started(engine, busy, begun));
                    }
                    return;
                }
            }
        }
    }

    /// Somebody waits for a chunk that no exact plan wants.
    pub(crate) fn missed(&self) {
        self.missed.fetch_add(1, Relaxed);
    }

    /// Somebody waits for bytes.
    pub(crate) fn waited(&self) {
        self.waited.fetch_add(1, Relaxed);
    }

    fn next(&self) -> Next {
        let mut state = self.state.lock();
        let state = &mut *state;
        while let Some(layer) = state.queue.front().filter(|layer| !layer.engine.keeping.is_on()) {
            // It would be fetched for nothing.
            state.queue.forget(&layer);
        }
        if let Some(layer) = state.queue.front() {
            let measure = layer.plan_measure();
            let enough = measure.size.saturating_mul(FULL_LINK);
            let full = state.windows >= *WINDOWS.start() && state.bytes >= enough;
            if full || state.windows >= *WINDOWS.end() {
                return Next::Wait;
            }
            if let Some((layer, window)) = state.queue.take(measure) {
                state.windows += 1;
                state.bytes += window.len();
                return Next::Send(layer, window);
            }
        }
        if state.windows > 0 {
            return Next::Wait;
        }
        state.running = false;
        Next::End { exact: state.exact.take() }
    }

    fn send(self: &Arc<Self>, layer: Arc<Layer>, window: Arc<Window>) {
        let sent = Sent { planner: Arc::clone(self), bytes: window.len() };
        layer.engine.runtime.clone().spawn(async move {
            let worked = receive(Arc::clone(&layer), window, None).await.is_ok();
            if !worked || layer.is_storage_failing() {
                // Demand and the background will come to it.
                sent.planner.state.lock().queue.forget(&layer);
            }
            drop(sent);
        });
    }
}

enum Next {
    Send(Arc<Layer>, Arc<Window>),
    Wait,
    End { exact: Option<Begun> },
}

// === impl Sent ===

impl Drop for Sent {
    fn drop(&mut self) {
        let mut state = self.planner.state.lock();
        state.windows -= 1;
        state.bytes -= self.bytes;
        drop(state);
        self.planner.changed.notify_one();
    }
}

// === impl Store ===

impl Store {
    /// A container starts whose files are likely to be here: for two seconds, and no more than half of the time, the background
    /// leaves the processors to it. It does not if reads have to wait.
    pub fn started_again(&self) {
        if self.engine.planner.again.begins(Instant::now()) {
            self.engine.runtime.spawn(hold::while_started_again(Arc::clone(&self.engine)));
        }
    }
}

// === impl Layer ===

impl Layer {
    /// Fetches what earlier starts of the image `id` read of this layer, in their order, as part of its plan. Says
    /// whether there is a profile to go by.
    pub fn start_plan(self: &Arc<Self>, id: PlanId) -> bool {
        if !self.has_profile() {
            return false;
        }
        // All Prepares of a pull ask.
        if !self.is_new_plan(id) {
            return true;
        }
        let layer = Arc::clone(self);
        // The background, which may be started next, must not be on the link before the plan.
        let mut busy = self.engine.activity.window();
        busy.resume();
        self.engine.runtime.spawn_blocking(move || {
            let _busy = busy;
            let Some(profile) = layer.profile_of(id) else { return };
            layer.engine.shelf.touch(Book::of_any(layer.key()));
            layer.engine.shelf.touch(Book::of(layer.key(), id));
            layer.engine.planner.add(id, &layer, profile.accesses().to_vec(), true);
        });
        true
    }

    /// Fetches what the image's author wants fetched first: all before the prefetch landmark. Without a landmark, the
    /// first `len` bytes of the blob. Part of the plan `id`.
    pub fn start_prefetch(self: &Arc<Self>, id: PlanId, len: u64) -> bool {
        let end = self.index().prefetch_end().unwrap_or(len);
        let chunks = self.index().chunks_in(0..end);
        let any = !chunks.is_empty();
        if any {
            self.follow(id, chunks.map(|chunk| Access { chunk: ChunkId(chunk), at: 0 }).collect());
        }
        any
    }

    /// Fetches the chunks of `steps`, as part of the plan `id`.
    pub(crate) fn follow(self: &Arc<Self>, id: PlanId, steps: Vec<Access>) {
        self.engine.planner.add(id, self, steps, false);
    }

    fn plan_measure(&self) -> Measure {
        let bandwidth = self.engine.bandwidth(self.source().as_ref());
        let (shortest, longest) = WINDOW_LENGTHS.into_inner();
        let size = bandwidth.carries(WINDOW).clamp(shortest, longest).min(self.engine.bounds().max);
        Measure { size, gap: bandwidth.carries(GAP).clamp(LONGEST_GAP, LONGEST_PLANNED_GAP) }
    }
}
