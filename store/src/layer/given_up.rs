//! Chunks that a read has just waited for in vain.
//!
//! Of several readers of a page the kernel lets one ask for it. When that read fails the next one asks again
//! (`filemap_update_page`), and so does a single reader whose page came with read-ahead. So those who wait for one page of
//! an origin that hangs would wait for the whole limit one after the other. Whoever asks within a moment after a read gave up
//! has waited as well, and is told so at once; later reads wait again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use estargz::ChunkId;
use parking_lot::Mutex;

/// The kernel asks again within microseconds. A program that tries again is to wait.
const MOMENT: Duration = Duration::from_millis(250);
/// Chunks that are remembered at most; a read is of some hundreds at most.
const MOST: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct GivenUp(Mutex<HashMap<ChunkId, Instant>>);

// === impl GivenUp ===

impl GivenUp {
    /// A read has waited for `chunks` for as long as it may.
    pub(super) fn add(&self, chunks: &[ChunkId]) {
        let mut until = self.0.lock();
        let now = Instant::now();
        until.retain(|_, until| *until > now);
        let room = MOST.saturating_sub(until.len());
        until.extend(chunks.iter().take(room).map(|chunk| (*chunk, now + MOMENT)));
    }

    /// Whether a read has just given up waiting for any of `chunks`.
    pub(super) fn has_any(&self, chunks: &[ChunkId]) -> bool {
        let mut until = self.0.lock();
        if until.is_empty() {
            return false;
        }
        let now = Instant::now();
        until.retain(|_, until| *until > now);
        chunks.iter().any(|chunk| until.contains_key(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_remembered_for_a_moment() {
        let given_up = GivenUp::default();
        given_up.add(&[ChunkId(3), ChunkId(4)]);
        assert!(given_up.has_any(&[ChunkId(9), ChunkId(4)]) && !given_up.has_any(&[ChunkId(5)]));
        std::thread::sleep(MOMENT);
        assert!(!given_up.has_any(&[ChunkId(3), ChunkId(4)]));
        assert!(given_up.0.lock().is_empty());
    }

    #[test]
    fn is_bounded() {
        let given_up = GivenUp::default();
        given_up.add(&(0..2 * MOST as u32).map(ChunkId).collect::<Vec<_>>());
        assert_eq!(given_up.0.lock().len(), MOST);
    }
}
