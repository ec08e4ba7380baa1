//! The background: completes layers, a few windows at a time over the whole store, while nobody waits.
//!
//! Layers take turns. A window that hangs gives its turn back (see `body.rs`), and a layer has a bounded number of
//! windows, so that an origin that is down holds up its own layer only.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Release},
        },
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{reach::Reach, receive::receive, turns::Turns};
use crate::{Class, Layer, StoreConfig};

const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Nobody may have waited for a quarter of what a request takes when a window of the background is begun: a reader that goes
/// on does so at once. One that comes later joins the response, or has it held back (`link.rs`), which it notices once the
/// socket's buffers are full.
const QUIET_PARTS: u32 = 4;
const LONGEST_QUIET: Duration = Duration::from_millis(500);
/// Windows of one layer at one time.
const PER_LAYER: usize = 4;

/// The layers to complete.
#[derive(Debug)]
pub(crate) struct Background {
    queue: Mutex<VecDeque<Entry>>,
    /// Whether somebody takes from the queue. Changes only with the queue locked.
    running: AtomicBool,
    changed: Notify,
    turns: Arc<Turns>,
    window: u64,
}

#[derive(Debug)]
struct Entry {
    layer: Weak<Layer>,
    windows: usize,
    rest: Duration,
    until: Instant,
}

// === impl Background ===

impl Background {
    pub(crate) fn new(config: &StoreConfig) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            running: AtomicBool::new(false),
            changed: Notify::new(),
            turns: Turns::new(config.background_windows, config.background_window),
            window: config.background_window,
        })
    }

    /// Takes on a layer.
    pub(crate) fn add(self: &Arc<Self>, layer: &Arc<Layer>) {
        if layer.files.chunks.is_complete() || layer.in_background.swap(true, AcqRel) {
            return;
        }
        let first = {
            let mut queue = self.queue.lock();
            let (layer, until) = (Arc::downgrade(layer), Instant::now());
            queue.push_back(Entry { layer, windows: 0, rest: FIRST_REST, until });
            !self.running.swap(true, AcqRel)
        };
        if first {
            layer.engine.runtime.spawn(Arc::clone(self).run());
        }
        self.changed.notify_one();
    }

    /// Ends when there is no layer left.
    async fn run(self: Arc<Self>) {
        while self.goes_on() {
            let turn = self.turns.next().await;
            let layer = match self.next() {
                Next::Layer(layer) => layer,
                Next::Wait(until) => {
                    drop(turn);
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = sleep_until(until) => {}
                    }
                    continue;
                }
            };
            let first_byte = layer.engine.bandwidth(layer.source().as_ref()).first_byte();
            layer.engine.activity.quiet_for((first_byte / QUIET_PARTS).min(LONGEST_QUIET)).await;
            if !layer.engine.keeping.is_on() {
                // It would be fetched for nothing.
                self.ended(&layer, false);
                continue;
            }
            let reach = Reach { backward: 0, forward: self.window, steps: 0 };
            let window = layer.next_window(0..u32::MAX, reach, Class::Background);
            let Some(window) = window else {
                // A chunk that is free and cannot be asked for will not be in a moment either.
                self.ended(&layer, !layer.has_free_chunk());
                // What is missing is on its way; whether it arrives will be seen.
                continue;
            };
            let turn = turn.of_length(window.len());
            let this = Arc::clone(&self);
            layer.engine.runtime.clone().spawn(async move {
                let worked = receive(Arc::clone(&layer), window, Some(turn)).await.is_ok();
                this.ended(&layer, worked && !layer.is_storage_failing());
            });
        }
    }

    /// Whether there is anything left. Whoever adds a layer later starts another runner.
    fn goes_on(&self) -> bool {
        let queue = self.queue.lock();
        self.running.store(!queue.is_empty(), Release);
        !queue.is_empty()
    }

    /// The next layer in turn that can take a window.
    fn next(&self) -> Next {
        let mut queue = self.queue.lock();
        let now = Instant::now();
        queue.retain(|entry| {
            let layer = entry.layer.upgrade();
            let keep = layer
                .as_ref()
                .is_some_and(|layer| !layer.files.chunks.is_complete() && layer.is_wanted_whole());
            if let (false, Some(layer)) = (keep, layer) {
                layer.in_background.store(false, Release);
            }
            keep
        });
        let ready = |entry: &Entry| {
            let free = entry.layer.upgrade().is_some_and(|layer| layer.has_free_chunk());
            entry.windows < PER_LAYER && entry.until <= now && free
        };
        if let Some(mut entry) = queue.iter().position(ready).and_then(|position| queue.remove(position)) {
            entry.windows += 1;
            let layer = entry.layer.upgrade();
            queue.push_back(entry);
            if let Some(layer) = layer {
                return Next::Layer(layer);
            }
        }
        let rests = queue.iter().filter(|entry| entry.windows == 0 && entry.until > now);
        let until = rests.map(|entry| entry.until).min();
        // Chunks also come back from windows of demand that failed, which nobody tells about.
        Next::Wait(until.unwrap_or(now + FIRST_REST).min(now + FIRST_REST))
    }

    fn ended(&self, layer: &Arc<Layer>, worked: bool) {
        let mut queue = self.queue.lock();
        let same = |entry: &&mut Entry| std::ptr::eq(entry.layer.as_ptr(), Arc::as_ptr(layer));
        if let Some(entry) = queue.iter_mut().find(same) {
            entry.windows = entry.windows.saturating_sub(1);
            if worked {
                entry.rest = FIRST_REST;
            } else {
                entry.until = Instant::now() + entry.rest;
                entry.rest = (entry.rest * 2).min(LONGEST_REST);
            }
        }
        drop(queue);
        self.changed.notify_one();
    }
}

enum Next {
    Layer(Arc<Layer>),
    Wait(Instant),
}
