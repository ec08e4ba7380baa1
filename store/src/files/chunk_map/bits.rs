//! Which chunks are here, in memory: whoever sees a bit sees the bytes that were written before it was set.

use std::{
    ops::Range,
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

use estargz::ChunkId;

use crate::sync::AtomicU64;

const BITS: u32 = u64::BITS;

/// The bits of a layer's chunks, and what they add up to.
#[derive(Debug)]
pub(crate) struct Bits {
    words: Box<[AtomicU64]>,
    count: u32,
    present: AtomicU64,
    bytes: AtomicU64,
}

// === impl Bits ===

impl Bits {
    /// For `count` chunks, of which those in `words` are here, `bytes` long.
    pub(crate) fn new(words: &[u64], count: u32, bytes: u64) -> Self {
        let present = words.iter().map(|word| u64::from(word.count_ones())).sum();
        let words = words.iter().copied().map(AtomicU64::new).collect();
        Self { words, count, present: AtomicU64::new(present), bytes: AtomicU64::new(bytes) }
    }

    /// Whether the chunk is here. If so, its bytes in the content file were written before.
    pub(crate) fn has(&self, chunk: ChunkId) -> bool {
        let word = self.words.get((chunk.0 / BITS) as usize);
        word.is_some_and(|word| word.load(Acquire) & bit(chunk.0) != 0)
    }

    /// To be called once the chunk's `len` bytes were verified and written. Says whether that is news.
    pub(crate) fn add(&self, chunk: ChunkId, len: u64) -> bool {
        let Some(word) = self.words.get((chunk.0 / BITS) as usize) else { return false };
        let news = word.fetch_or(bit(chunk.0), Release) & bit(chunk.0) == 0;
        if news {
            // Those who see the last one count as seeing all before it.
            self.present.fetch_add(1, Release);
            self.bytes.fetch_add(len, Relaxed);
        }
        news
    }

    /// To be called when the chunk's bytes, `len` of them, are not to be trusted any more. If it was recorded, `ChunkMap::forget`
    /// comes next.
    pub(crate) fn remove(&self, chunk: ChunkId, len: u64) {
        let Some(word) = self.words.get((chunk.0 / BITS) as usize) else { return };
        if word.fetch_and(!bit(chunk.0), Release) & bit(chunk.0) != 0 {
            self.present.fetch_sub(1, Relaxed);
            self.bytes.fetch_sub(len, Relaxed);
        }
    }

    /// The first chunk from `from` on that is here.
    pub(crate) fn first_present(&self, from: u32) -> Option<u32> {
        let mut chunk = from;
        while chunk < self.count {
            let here = self.words.get((chunk / BITS) as usize)?.load(Acquire) >> (chunk % BITS);
            if here != 0 {
                return Some(chunk + here.trailing_zeros()).filter(|&chunk| chunk < self.count);
            }
            chunk = (chunk / BITS + 1) * BITS;
        }
        None
    }

    /// The first chunk of `chunks` that is not here.
    pub(crate) fn first_missing(&self, chunks: Range<u32>) -> Option<u32> {
        let (mut chunk, end) = (chunks.start, chunks.end.min(self.count));
        while chunk < end {
            let word = self.words.get((chunk / BITS) as usize)?.load(Acquire);
            let missing = !word >> (chunk % BITS);
            if missing != 0 {
                return Some(chunk + missing.trailing_zeros()).filter(|&chunk| chunk < end);
            }
            chunk = (chunk / BITS + 1) * BITS;
        }
        None
    }

    /// Number of chunks that are here.
    pub(crate) fn present(&self) -> u64 {
        self.present.load(Relaxed)
    }

    /// Bytes of the chunks that are here.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether all chunks are here, with their bytes as for [`Self::has`].
    pub(crate) fn is_complete(&self) -> bool {
        self.present.load(Acquire) >= u64::from(self.count)
    }
}

fn bit(chunk: u32) -> u64 {
    1 << (chunk % BITS)
}
