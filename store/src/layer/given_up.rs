//! Chunks that a read has just waited for in vain, of an origin that has sent nothing since.
//!
//! Of several readers of a page the kernel lets one ask for it. When that read fails the next one asks again
//! (`filemap_update_page`), so those who wait for one page of an origin that hangs would each wait for the whole bound, one
//! after the other. Whoever comes soon after a read gave up waits for [`SHORT`] only: nobody is refused without having asked,
//! and an origin that is back is found by whoever comes next. A byte of whatever the layer asks for ends it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use estargz::ChunkId;
use parking_lot::Mutex;

/// The longest pause after failures (`fetch/back_off.rs`), and as long again for an answer.
pub(super) const SHORT: Duration = Duration::from_secs(2);
/// For how long after a read gave up others count as having waited with it. Longer than they wait.
const SOON: Duration = Duration::from_secs(3);
/// Chunks that are remembered at most; a read is of some hundreds at most.
const MOST: usize = 4096;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct GivenUp(Mutex<HashMap<ChunkId, Instant>>);

// === impl GivenUp ===

impl GivenUp {
    /// A read has waited for `chunks` for as long as it may.
    pub(super) fn add(&self, chunks: &[ChunkId]) {
        let mut since = self.0.lock();
        since.retain(|_, since| since.elapsed() < SOON);
        let (now, room) = (Instant::now(), MOST.saturating_sub(since.len()));
        since.extend(chunks.iter().take(room).map(|chunk| (*chunk, now)));
    }

    /// Whether a read has just given up on any of `chunks`, and nothing came since.
    pub(super) fn has_any(&self, chunks: &[ChunkId]) -> bool {
        let since = self.0.lock();
        chunks.iter().any(|chunk| since.get(chunk).is_some_and(|since| since.elapsed() < SOON))
    }

    /// The origin has sent something, or is another one.
    pub(crate) fn answered(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_remembered_until_something_comes() {
        let given_up = GivenUp::default();
        given_up.add(&[ChunkId(3), ChunkId(4)]);
        assert!(given_up.has_any(&[ChunkId(9), ChunkId(4)]) && !given_up.has_any(&[ChunkId(5)]));
        given_up.answered();
        assert!(!given_up.has_any(&[ChunkId(3), ChunkId(4)]));
    }

    #[test]
    fn is_remembered_for_a_while_only() {
        let given_up = GivenUp::default();
        given_up.add(&[ChunkId(3)]);
        let Some(long_ago) = Instant::now().checked_sub(SOON) else { return };
        given_up.0.lock().insert(ChunkId(3), long_ago);
        assert!(!given_up.has_any(&[ChunkId(3)]));
        given_up.add(&[ChunkId(4)]);
        assert_eq!(given_up.0.lock().len(), 1);
    }

    #[test]
    fn is_bounded() {
        let given_up = GivenUp::default();
        given_up.add(&(0..2 * MOST as u32).map(ChunkId).collect::<Vec<_>>());
        assert_eq!(given_up.0.lock().len(), MOST);
    }
}
