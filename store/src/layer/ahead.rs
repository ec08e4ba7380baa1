//! Readers that go through the blob in order, as `tar` does: what comes next is asked for before it is missed.
//!
//! What is here already, as a plan or an earlier start left it, may lie between: a long stretch of it ends a window and counts
//! for nothing else, so that a reader has the same number of missing bytes on their way whatever is here.

use std::sync::Arc;

use estargz::ChunkId;

use super::Layer;
use crate::{
    Class,
    fetch::{
        in_flight::Table,
        reach::Reach,
        receive::receive,
        window::{LONGEST_GAP, MOST_CHUNKS, Window},
    },
};

/// A reader that goes through the blob in order has what the link carries in so many round trips on its way.
const AHEAD: u64 = 4;
/// Most windows for it; so many are asked for at a time as the layer has turns for that.
const MOST_AHEAD: usize = 16;

// === impl Layer ===

impl Layer {
    /// Whether the first who waits for `window`, for its `chunk`, goes through the blob in order.
    pub(super) fn goes_on(&self, chunk: ChunkId, window: &Window, class: Class) -> bool {
        match class {
            Class::ReadAhead => true,
            Class::Background => self.chunk(chunk).is_ok_and(|chunk| {
                let (at, end) = (chunk.member_start, window.span().end);
                self.pattern.lock().joins(at, end, |from| self.is_here_between(from, at))
            }),
            Class::Demand | Class::Prefetch => false,
        }
    }

    /// A reader goes through the blob in order and will soon be at `at`: asks for what is missing from there on.
    pub(super) fn read_ahead(self: &Arc<Self>, at: u64, product: u64) {
        if !self.engine.keeping.is_on() {
            // It would be fetched for nothing.
            return;
        }
        let windows = {
            let mut table = self.in_flight.lock();
            self.windows_ahead(&mut table, at, product)
        };
        for window in windows {
            self.engine.runtime.spawn(receive(Arc::clone(self), window, None));
        }
    }

    fn windows_ahead(&self, table: &mut Table, at: u64, product: u64) -> Vec<Arc<Window>> {
        let near = self.engine.bounds().clamp(product.saturating_mul(AHEAD));
        let (mut windows, mut at, end) = (Vec::new(), at, self.behind_missing(at, near));
        while windows.len() < MOST_AHEAD && at < end && !self.engine.tracked.is_full() {
            let Some(first) = self.first_free(table, &self.files.index.chunks_in(at..end)) else { break };
            let window = if windows.is_empty() {
                self.window_for(table, first, product, Class::ReadAhead).map(|(window, _)| window)
            } else {
                self.chunk(first).and_then(|chunk| {
                    let forward = end.saturating_sub(chunk.member_start);
                    let reach = Reach { backward: 0, forward, steps: 1 };
                    self.cut(table, first, reach, Class::ReadAhead)
                })
            };
            let Ok(window) = window else { break };
            let reached = window.span().end.max(at + 1);
            self.pattern.lock().went_on(at, reached);
            at = reached;
            table.insert(&window);
            windows.push(window);
        }
        windows
    }

    /// Where `bytes` that are not here from `at` on end, whether they are on their way or not. Sooner if they lie so far apart
    /// that they are too many windows.
    fn behind_missing(&self, at: u64, bytes: u64) -> u64 {
        let toc = self.files.index.toc_offset();
        let chunks = self.files.index.chunks_in(at..toc);
        let (mut from, mut left, mut end, mut jumps) = (chunks.start, bytes, at, 0);
        for _ in 0..MOST_CHUNKS {
            let missing = self.files.chunks.first_missing(from..chunks.end);
            let Some(missing) = missing.filter(|_| left > 0) else { break };
            if let Ok(chunk) = self.chunk(ChunkId(missing)) {
                jumps += usize::from(chunk.member_start > end.saturating_add(LONGEST_GAP));
                if jumps > MOST_AHEAD {
                    return end;
                }
                left = left.saturating_sub(chunk.member_end.saturating_sub(chunk.member_start.max(end)));
                end = chunk.member_end.max(end);
            }
            from = missing + 1;
        }
        end.max(at.saturating_add(bytes)).min(toc)
    }
}
