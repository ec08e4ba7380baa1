//! Asking for what is missing.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Release},
};

use estargz::{Chunk, ChunkId, IndexError};

use super::Layer;
use crate::{
    Class, ReadError,
    fetch::{
        in_flight::{Joined, Table, Waiting},
        reach::Reach,
        receive::receive,
        window::{Chunks, MOST_CHUNKS, Tail, Window},
    },
};

/// Chunks without a sensible place that are passed over at once.
const MOST_DAMAGED: u32 = 4096;

/// How far a window goes on behind what was missed, in times of what the link carries during a round trip.
const TAIL: u64 = 16;

/// A chunk that is waited for.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) chunk: ChunkId,
    pub(super) waiting: Waiting,
    pub(super) window: Arc<Window>,
    pub(super) origin: Origin,
}

/// Whose request a chunk comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// One that was made for this read.
    Own,
    /// One that was under way.
    Joined,
}

/// What windows of a layer are cut from, while nobody else cuts.
pub(super) struct View<'a> {
    pub(super) layer: &'a Layer,
    pub(super) table: &'a Table,
}

// === impl Layer ===

impl Layer {
    /// Waits for `missing`: joins what is on its way and asks for the rest.
    pub(super) fn demand(self: &Arc<Self>, missing: &[ChunkId]) -> Result<Vec<Wait>, ReadError> {
        let product = self.engine.bandwidth(self.source().as_ref()).product();
        let (mut waits, mut windows, mut hurried) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ahead, mut damaged) = (None, None);
        {
            let mut table = self.in_flight.lock();
            for &chunk in missing {
                // It may have arrived since it was found missing: bits are set before chunks leave the table.
                if self.files.chunks.has(chunk) {
                    continue;
                }
                let mut origin = Origin::Joined;
                if !table.has(chunk) {
                    origin = Origin::Own;
                    match self.missed(&table, chunk, product) {
                        Ok((window, then)) => {
                            ahead = then;
                            table.insert(&window);
                            windows.push(window);
                        }
                        Err(error) => damaged = Some(error),
                    }
                }
                if let Some(Joined { waiting, window, class, job }) = table.join(chunk) {
                    let is_first = window.wait_for(chunk, self.engine.link.tick());
                    if is_first && self.goes_on(chunk, &window, class) {
                        ahead = Some(window.span().end);
                        self.engine.planner.missed();
                    }
                    hurried.extend(job);
                    waits.push(Wait { chunk, waiting, window, origin });
                }
            }
        }
        for window in windows {
            self.engine.runtime.spawn(receive(Arc::clone(self), window, None));
        }
        if !waits.is_empty() {
            self.engine.planner.waited();
        }
        self.engine.link.wake();
        for job in hurried {
            job.hurry();
        }
        if let Some(end) = ahead {
            self.read_ahead(end, product);
        }
        damaged.map_or(Ok(waits), |error| Err(error.into()))
    }

    /// The window for a chunk that was missed, and where its reader goes on if it goes through the blob in order.
    fn missed(
        &self,
        table: &Table,
        chunk: ChunkId,
        product: u64,
    ) -> Result<(Arc<Window>, Option<u64>), IndexError> {
        if let Some(window) = self.missed_in_plan(table, chunk, product) {
            return Ok((window, None));
        }
        self.engine.planner.missed();
        let (window, reach) = self.window_for(table, chunk, product, Class::Demand)?;
        let end = window.span().end;
        Ok((window, reach.is_sequential().then_some(end)))
    }

    /// Whether all of the blob from `from` to `to` is here: who reads in order has read it.
    pub(super) fn is_here_between(&self, from: u64, to: u64) -> bool {
        self.files.chunks.first_missing(self.files.index.chunks_in(from..to)).is_none()
    }

    /// Asks for `wanted` once more if the source has stopped sending the window that they come with. What comes first is
    /// taken. Says whether there is nothing more to do about that window.
    pub(super) fn hedge(self: &Arc<Self>, window: &Arc<Window>, wanted: &[ChunkId]) -> bool {
        if !window.is_stalled() {
            return false;
        }
        if let Some(hedge) = window.hedge(&self.in_flight.not_received(wanted, window)) {
            tracing::info!(layer = %self.key(), span = ?window.span(), "no bytes come, asking a second time");
            self.engine.runtime.spawn(receive(Arc::clone(self), Arc::new(hedge), None));
        }
        true
    }

    /// Cuts the window around a chunk that was missed.
    pub(super) fn window_for(
        &self,
        table: &Table,
        chunk: ChunkId,
        product: u64,
        class: Class,
    ) -> Result<(Arc<Window>, Reach), IndexError> {
        let at = self.chunk(chunk)?.member_start;
        if !self.engine.keeping.is_on() {
            // Neighbours would be fetched for nothing.
            return Ok((self.cut(table, chunk, Reach::ONE_MEMBER, class)?, Reach::ONE_MEMBER));
        }
        let mut pattern = self.pattern.lock();
        let bounds = self.engine.bounds();
        let reach = pattern.reach(at, product, bounds, |from| self.is_here_between(from, at));
        let further = bounds.clamp(product.saturating_mul(TAIL));
        let window = match self.tail(at.saturating_add(reach.forward), class) {
            Some(tail) if further > reach.forward => {
                let reach = Reach { forward: further, ..reach };
                let members = Window::cut(&View { layer: self, table }, chunk, reach)?;
                Arc::new(Window::new(members, class, 0).with_tail(tail))
            }
            _ => self.cut(table, chunk, reach, class)?,
        };
        pattern.chosen(window.span().end, reach);
        Ok((window, reach))
    }

    /// The right to go on behind a miss, if all of the layer is wanted anyway and not too many do so already.
    fn tail(&self, start: u64, class: Class) -> Option<Tail> {
        if class != Class::Demand || !self.will_be_completed() {
            return None;
        }
        let turn = Arc::clone(&self.engine.tails).try_acquire_owned().ok()?;
        Some(Tail { start, _turn: turn })
    }

    /// Whether all of the layer is wanted anyway, now or later.
    pub(super) fn will_be_completed(&self) -> bool {
        self.engine.config.background && !self.giving_back.has_begun()
    }

    /// Takes the next window of free chunks within `chunks`, in blob order.
    pub(crate) fn next_window(&self, chunks: Range<u32>, reach: Reach, class: Class) -> Option<Arc<Window>> {
        let mut table = self.in_flight.lock();
        let mut window = self.cut_first(&table, &chunks, reach, class)?;
        if chunks.end < self.files.index.chunk_count() {
            window = self.within(&window, &chunks)?;
        }
        table.insert(&window);
        Some(window)
    }

    /// Whether a chunk is neither here nor on its way.
    pub(crate) fn has_free_chunk(&self) -> bool {
        self.first_free(&self.in_flight.lock(), &(0..u32::MAX)).is_some()
    }

    pub(super) fn first_free(&self, table: &Table, chunks: &Range<u32>) -> Option<ChunkId> {
        let mut from = chunks.start;
        loop {
            let missing = self.files.chunks.first_missing(from..chunks.end)?;
            if !table.has(ChunkId(missing)) {
                return Some(ChunkId(missing));
            }
            from = missing + 1;
        }
    }

    /// Cuts a window around the first free chunk of `chunks` that a damaged index still knows the place of.
    fn cut_first(
        &self,
        table: &Table,
        chunks: &Range<u32>,
        reach: Reach,
        class: Class,
    ) -> Option<Arc<Window>> {
        let mut from = chunks.start;
        for _ in 0..MOST_DAMAGED {
            let first = self.first_free(table, &(from..chunks.end))?;
            if let Ok(window) = self.cut(table, first, reach, class) {
                return Some(window);
            }
            from = first.0 + 1;
        }
        None
    }

    /// The members of `window` that begin within `chunks`.
    fn within(&self, window: &Window, chunks: &Range<u32>) -> Option<Arc<Window>> {
        let inside = |id: &ChunkId| chunks.contains(&id.0);
        let members = window.members.iter().filter(|member| member.chunks.iter().any(inside)).cloned();
        let members: Vec<_> = members.collect();
        (!members.is_empty()).then(|| Arc::new(Window::new(members, window.class(), 0)))
    }

    pub(super) fn cut(
        &self,
        table: &Table,
        wanted: ChunkId,
        reach: Reach,
        class: Class,
    ) -> Result<Arc<Window>, IndexError> {
        let members = Window::cut(&View { layer: self, table }, wanted, reach)?;
        Ok(Arc::new(Window::new(members, class, 0)))
    }

    /// Completes the layer while nobody waits for anything. May be called again after a failure, or any time.
    pub fn start_background(self: &Arc<Self>) {
        if self.will_be_completed() {
            self.completing.store(true, Release);
            self.engine.background.add(self);
        }
    }
}

// === impl View ===

impl Chunks for View<'_> {
    fn count(&self) -> u32 {
        self.layer.files.index.chunk_count()
    }

    fn chunk(&self, id: ChunkId) -> Result<Chunk, IndexError> {
        self.layer.chunk(id)
    }

    fn is_free(&self, id: ChunkId) -> bool {
        !self.layer.files.chunks.has(id) && !self.table.has(id)
    }

    fn most_chunks(&self) -> u32 {
        self.layer.engine.tracked.room().min(MOST_CHUNKS)
    }
}
