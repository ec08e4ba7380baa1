//! Reading files: cached bytes at once, missing ones from a task.
//!
//! What is here is copied into a buffer of the FUSE thread and handed over from it. What is not becomes a task that
//! owns the reply, so that any number of reads can wait for a hanging origin while all FUSE threads go on.

use std::{
    cell::RefCell,
    error::Error,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use bytes::Bytes;
use estargz::NodeId;
use fuser::ReplyData;

use super::{Server, Shared};
use crate::{Failure, LayerTree, Slot, counters::count, ino::Inode};

thread_local! {
    /// Where cached bytes go on their way to the kernel; as long as the longest read this thread answered (1 MiB).
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A read of existing bytes of a file.
struct Piece {
    layer: Arc<dyn LayerTree>,
    slot: Slot,
    file: NodeId,
    offset: u64,
    len: usize,
}

// === impl Server ===

impl Server {
    pub(super) fn answer_read(
        &self,
        inode: Result<Inode, Failure>,
        offset: u64,
        size: u32,
        reply: ReplyData,
    ) {
        count(&self.shared.counters.reads);
        let piece = match inode.and_then(|inode| self.piece(inode, offset, size)) {
            Ok(piece) => piece,
            Err(failure) => return reply.error(self.shared.errno(&failure)),
        };
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.len() < piece.len {
                scratch.resize(piece.len, 0);
            }
            let buf = scratch.get_mut(..piece.len).unwrap_or_default();
            match piece.read_cached(buf) {
                Ok(true) => {
                    count(&self.shared.counters.hits);
                    self.shared.counters.bytes.fetch_add(piece.len as u64, Relaxed);
                    reply.data(buf);
                }
                Ok(false) => self.fetch(piece, reply),
                Err(failure) => reply.error(self.shared.fault(&piece, &failure)),
            }
        });
    }

    /// The existing part of what was asked for. A read beyond the end is an empty piece.
    fn piece(&self, inode: Inode, offset: u64, size: u32) -> Result<Piece, Failure> {
        let Inode::Layer(slot, file) = inode else { return Err(Failure::Stale) };
        let layers = self.shared.layers.now();
        let layer = layers.layer(slot)?;
        let rest = layer.attributes(file)?.size.saturating_sub(offset);
        let len = rest.min(size.into()) as usize;
        Ok(Piece { layer: layer.clone(), slot, file, offset, len })
    }

    fn fetch(&self, piece: Piece, reply: ReplyData) {
        count(&self.shared.counters.misses);
        self.shared.counters.stall_begins();
        let shared = self.shared.clone();
        self.shared.runtime.spawn(async move {
            let began = Stall { shared: &shared, began: Instant::now() };
            let waiting = shared.under_way.begin(piece.slot, piece.file);
            let bytes = piece.read(&shared).await;
            drop((began, waiting));
            match bytes {
                Ok(bytes) => {
                    shared.counters.bytes.fetch_add(bytes.len() as u64, Relaxed);
                    reply.data(&bytes);
                }
                Err(failure) => reply.error(shared.fault(&piece, &failure)),
            }
        });
    }
}

// === impl Piece ===

impl Piece {
    fn read_cached(&self, buf: &mut [u8]) -> Result<bool, Failure> {
        if buf.is_empty() {
            return Ok(true);
        }
        let Some(got) = self.layer.read_cached(self.file, self.offset, buf)? else { return Ok(false) };
        self.complete(got).map(|()| true)
    }

    async fn read(&self, shared: &Shared) -> Result<Bytes, Failure> {
        let read = self.layer.clone().read(self.file, self.offset, self.len);
        let deadline = shared.options.read_deadline;
        let bytes = tokio::time::timeout(deadline, read).await.map_err(|_| Failure::TimedOut(deadline))??;
        self.complete(bytes.len()).map(|()| bytes)
    }

    fn complete(&self, got: usize) -> Result<(), Failure> {
        if got == self.len { Ok(()) } else { Err(Failure::ShortRead { got, wanted: self.len }) }
    }
}

// === impl Shared ===

impl Shared {
    /// Tells about a read that failed, and gives its error number.
    fn fault(&self, piece: &Piece, failure: &Failure) -> fuser::Errno {
        tracing::warn!(
            layer = %piece.layer.describe(),
            slot = %piece.slot,
            node = %piece.file,
            offset = piece.offset,
            len = piece.len,
            error = %with_causes(failure),
            "read of a layer failed",
        );
        self.errno(failure)
    }
}

/// An error and what it was caused by, in one line.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

/// A wait that is counted however it ends, also when the runtime drops the task.
struct Stall<'a> {
    shared: &'a Shared,
    began: Instant,
}

// === impl Stall ===

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        self.shared.counters.stall_ends(self.began.elapsed());
    }
}
