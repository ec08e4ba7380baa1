//! Looking again at what is on disk: a chunk whose bytes are not those that were verified is dropped and fetched again.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use estargz::{Chunk, ChunkId, Sha256};

use super::{Layer, holes::Before};
use crate::{
    Class,
    fetch::{reach::Reach, receive::receive},
    files::Batch,
};

/// Bytes that are read and hashed at a time.
const PIECE: usize = 256 << 10;

/// What [`Layer::verify`] has looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Where to go on; none at the end.
    pub next: Option<u32>,
    /// Chunks that were looked at.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were not right. They are not here any more, and on their way again.
    pub damaged: Vec<u32>,
}

// === impl Layer ===

impl Layer {
    /// Reads the chunks that are here from the disk again, from the chunk `from` on, and compares them with their digests,
    /// until `bytes` were read. Blocks.
    ///
    /// # Errors
    /// A damaged chunk could not be dropped.
    pub fn verify(self: &Arc<Self>, from: u32, bytes: u64) -> io::Result<Checked> {
        let mut checked = Checked::default();
        let (mut at, mut buffer) = (from, vec![0; PIECE]);
        loop {
            let before = self.giving_back.holes.before();
            let Some(here) = self.files.chunks.first_present(at) else { break };
            if checked.bytes >= bytes {
                checked.next = Some(here);
                break;
            }
            let again = at;
            at = here + 1;
            // One that the index does not know the place of is never served.
            let Ok(chunk) = self.chunk(ChunkId(here)) else { continue };
            checked.chunks += 1;
            checked.bytes += chunk.len;
            if self.is_sound(&chunk, &mut buffer) {
                continue;
            }
            if self.drop_chunk(ChunkId(here), &chunk, before)? {
                checked.damaged.push(here);
            } else if !self.giving_back.holes.none_since(before) {
                // Something was given back meanwhile, this or another.
                at = again;
            }
        }
        checked.damaged.iter().for_each(|&id| self.fetch_again(ChunkId(id)));
        Ok(checked)
    }

    fn is_sound(&self, chunk: &Chunk, buffer: &mut [u8]) -> bool {
        // What is in the page cache says nothing about the disk. What was not written yet stays.
        self.files.content.forget_pages(chunk.content_offset, chunk.len);
        let (mut hash, mut done) = (Sha256::new(), 0);
        while done < chunk.len {
            let len = (chunk.len - done).min(buffer.len() as u64);
            let piece = buffer.get_mut(..len as usize).unwrap_or_default();
            // A disk that cannot read it has lost it.
            if self.files.content.read(piece, chunk.content_offset + done).is_err() {
                return false;
            }
            hash.update(piece);
            done += len;
        }
        hash.finish() == chunk.digest
    }

    /// Makes a chunk be missing, in memory and on disk. Says false if it is not here any more, or something was given back
    /// since `before`: what was taken for damage may have been that.
    fn drop_chunk(&self, id: ChunkId, chunk: &Chunk, before: Before) -> io::Result<bool> {
        // Nobody records meanwhile, or gives back.
        let _alone = self.unsynced.flushing.lock();
        if !self.giving_back.holes.none_since(before) {
            return Ok(false);
        }
        {
            let mut batch = self.unsynced.batch.lock();
            if !self.files.chunks.has(id) {
                return Ok(false);
            }
            let known = batch.chunks.len();
            batch.chunks.retain(|other| *other != id.0);
            if batch.chunks.len() < known {
                batch.bytes = batch.bytes.saturating_sub(chunk.len);
            }
            self.files.chunks.remove(id, chunk.len);
        }
        self.counters.damaged.fetch_add(1, Relaxed);
        tracing::error!(layer = %self.key(), chunk = id.0, len = chunk.len,
            "a chunk on disk is not what was stored: it is dropped and fetched again");
        if !self.is_removed() {
            self.files.chunks.forget(&Batch { chunks: vec![id.0], bytes: chunk.len })?;
        }
        Ok(true)
    }

    fn fetch_again(self: &Arc<Self>, id: ChunkId) {
        let window = self.next_window(id.0..id.0 + 1, Reach::ONE_MEMBER, Class::Prefetch);
        if let Some(window) = window {
            self.engine.runtime.spawn(receive(Arc::clone(self), window, None));
        }
    }
}
