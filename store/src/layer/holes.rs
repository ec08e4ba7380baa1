//! How a read that takes no lock finds out that bytes were given back under it.
//!
//! Whoever gives bytes back takes their bits, counts, and then makes the hole. A read compares the count from before it
//! looked at the bits with that from after it read the bytes: one that saw a bit and then the hole sees two counts, and is
//! done again. The fences are for that: neither may the hole be seen before the count, nor the count be looked at before
//! the bytes. That bits are taken first and that nobody writes meanwhile is for others to see to (`layer/give_back.rs`).

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::{AtomicU64, fence};

/// How often bytes were given back.
#[derive(Debug, Default)]
pub(crate) struct Holes(AtomicU64);

/// A moment before a read looked at what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Before(u64);

// === impl Holes ===

impl Holes {
    /// To be called before looking whether chunks are here.
    pub(crate) fn before(&self) -> Before {
        Before(self.0.load(Acquire))
    }

    /// To be called after their bytes were read: whether nothing was given back since.
    pub(crate) fn none_since(&self, before: Before) -> bool {
        fence(Acquire);
        Before(self.0.load(Relaxed)) == before
    }

    /// To be called after bits were taken and before the bytes are.
    pub(crate) fn follow(&self) {
        self.0.fetch_add(1, Release);
        fence(Release);
    }
}
