//! Giving back disk of a layer that is in use: chunks that no start was seen to read, fetched only to have all of it.
//!
//! A chunk's bit goes first, in memory and on disk, then its bytes: whatever happens, a bit never stands for a hole. Reads
//! take no lock and find out by [`Holes`]. Nobody writes a chunk meanwhile, or has it in the table of what is on its
//! way: long ones are streamed into the file, by one request at a time, and stay in the table until they are known. What
//! the kernel has of a file stays as good as it was.

use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    sync::atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
};

use estargz::{Chunk, ChunkId, limits};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Layer, holes::Holes};
use crate::files::Batch;

/// Chunks that are given back at a time: what comes in while the chunk map is synced is not kept.
const AT_ONCE: usize = 1024;
/// Chunks that are looked at without letting misses go first.
const LOOKED_AT: u32 = 1 << 14;

/// What keeps reads and writes apart from what is given back.
#[derive(Debug, Default)]
pub(super) struct GivingBack {
    pub(super) holes: Holes,
    /// Shared by those who write a chunk; alone by those who give chunks back.
    writing: RwLock<()>,
    /// Some of the layer was given back: it is not to be completed again.
    began: AtomicBool,
}

/// Chunks whose bits were taken.
#[derive(Debug, Default)]
struct Unread {
    batch: Batch,
    places: Vec<Range<u64>>,
    /// Where to go on, if anywhere.
    next: Option<u32>,
}

// === impl GivingBack ===

impl GivingBack {
    /// To be held while a chunk is written and made known; none while chunks are given back, which takes as long as a sync:
    /// the threads that write are those of all layers.
    pub(super) fn try_writing(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.writing.try_read()
    }

    /// While this is held nothing is written or given back.
    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.writing.write()
    }

    /// Whether some of the layer was given back, so that it is not to be completed.
    pub(super) fn has_begun(&self) -> bool {
        self.began.load(Acquire)
    }
}

// === impl Layer ===

impl Layer {
    /// See [`Store::give_back`](crate::Store::give_back).
    pub(crate) fn give_back(&self, bytes: u64) -> io::Result<u64> {
        // Not every file system can (fallocate(2)): one that cannot says so also of nothing, behind the end.
        self.files.content.punch(self.files.index.content_len(), 1)?;
        let read: BTreeSet<u32> = self
            .profile()
            .map(|profile| profile.accesses().iter().map(|access| access.chunk.0).collect())
            .unwrap_or_default();
        let (mut from, mut given) = (Some(0), 0);
        while let Some(first) = from.filter(|_| given < bytes) {
            let (next, some) = self.give_back_some(first, bytes - given, &read)?;
            (from, given) = (next, given + some);
        }
        Ok(given)
    }

    /// Gives back up to [`AT_ONCE`] chunks, from `from` on. Gives where to go on, if anywhere, and the bytes.
    fn give_back_some(&self, from: u32, bytes: u64, read: &BTreeSet<u32>) -> io::Result<(Option<u32>, u64)> {
        // Nobody records meanwhile, and nobody writes.
        let _recording = self.unsynced.flushing.lock();
        let _alone = self.giving_back.alone();
        if self.is_removed() {
            return Ok((None, 0));
        }
        let unread = self.take_unread(from, bytes, read);
        let before = self.files.content.disk_bytes();
        if !unread.places.is_empty() {
            self.giving_back.began.store(true, Release);
            self.completing.store(false, Release);
            self.giving_back.holes.follow();
            self.files.chunks.forget(&unread.batch)?;
            for place in joined(unread.places) {
                self.files.content.punch(place.start, place.end - place.start)?;
            }
        }
        Ok((unread.next, before.saturating_sub(self.files.content.disk_bytes())))
    }

    /// Takes the bits of chunks that are recorded, that are not on their way, and that are not in `read`.
    fn take_unread(&self, from: u32, bytes: u64, read: &BTreeSet<u32>) -> Unread {
        // The table first: what leaves it is in the batch by then, if it is here.
        let table = self.in_flight.lock();
        // What is not recorded yet is new, and would have to be taken out of what is about to be.
        let new: BTreeSet<u32> = self.unsynced.batch.lock().chunks.iter().copied().collect();
        let (mut unread, mut at) = (Unread::default(), from);
        while let Some(here) = self.files.chunks.first_present(at) {
            let full = unread.batch.bytes >= bytes || unread.batch.chunks.len() >= AT_ONCE;
            if full || here - from >= LOOKED_AT {
                unread.next = Some(here);
                break;
            }
            at = here + 1;
            let id = ChunkId(here);
            let Ok(chunk) = self.chunk(id) else { continue };
            if !read.contains(&here) && !new.contains(&here) && !table.has(id) {
                self.files.chunks.remove(id, chunk.len);
                unread.batch.chunks.push(here);
                unread.batch.bytes += chunk.len;
                unread.places.push(chunk.content_offset..self.end_on_disk(&chunk));
            }
        }
        unread
    }
}

impl Layer {
    /// To be held while a chunk that was streamed into the file is made known.
    pub(crate) fn making_known(&self) -> RwLockReadGuard<'_, ()> {
        self.giving_back.writing.read()
    }

    /// Where a chunk ends in the content file: of a file's last one that is where the next file begins, for a file system
    /// gives back whole blocks only.
    fn end_on_disk(&self, chunk: &Chunk) -> u64 {
        let end = chunk.content_offset + chunk.len;
        match self.files.index.file(chunk.node) {
            Ok(file) if file.content_offset + file.size == end => end.next_multiple_of(limits::CONTENT_ALIGN),
            _ => end,
        }
    }
}

/// The same places, those that touch as one: a file system gives back whole blocks only.
fn joined(mut places: Vec<Range<u64>>) -> Vec<Range<u64>> {
    places.sort_by_key(|place| place.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for place in places {
        match joined.last_mut().filter(|last| last.end == place.start) {
            Some(last) => last.end = place.end,
            None => joined.push(place),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_touch_are_one() {
        assert_eq!(joined(vec![10..20, 0..10, 30..40]), [0..20, 30..40]);
        assert!(joined(Vec::new()).is_empty());
    }
}
