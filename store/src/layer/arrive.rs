//! What comes of a window: chunks that matched, and chunks that did not.

use std::{
    io,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed, Release},
    },
};

use bytes::Bytes;
use estargz::{Chunk, ChunkId};

use super::{Layer, unsynced::Epoch};
use crate::{
    Class, ReadError,
    fetch::{
        in_flight::Outcome,
        receive::receive,
        window::{Member, Window},
    },
};

/// How often bytes that do not match are asked for again.
const SECOND_CHANCES: u32 = 2;

// === impl Layer ===

impl Layer {
    /// Writes a verified chunk, makes it known, and wakes everyone who waits for it. If it cannot be written, or the layer is
    /// just giving chunks back, they get it from memory.
    pub(crate) fn store_chunk(self: &Arc<Self>, id: ChunkId, chunk: &Chunk, data: &[u8]) {
        let writing = self.giving_back.try_writing();
        if self.files.chunks.has(id) {
            return self.in_flight.settle(id, || Outcome::Stored);
        }
        if writing.is_none() {
            return self.in_flight.settle(id, || Outcome::Held(Bytes::copy_from_slice(data)));
        }
        if !self.engine.keeping.is_on() {
            self.engine.keeping.count_uncached();
            return self.in_flight.settle(id, || Outcome::Held(Bytes::copy_from_slice(data)));
        }
        let epoch = self.begin_write();
        let written = self.files.content.write(data, chunk.content_offset);
        if let Err(error) = &written {
            self.cannot_store(error);
        }
        if written.is_err() || !self.stored(id, chunk.len, epoch) {
            self.in_flight.settle(id, || Outcome::Held(Bytes::copy_from_slice(data)));
        }
    }

    /// A chunk was verified and written from `epoch` on. Says false if it may be gone again: it is not settled then.
    pub(crate) fn stored(self: &Arc<Self>, id: ChunkId, len: u64, epoch: Epoch) -> bool {
        let trusted = self.add_written(id, len, epoch);
        if trusted {
            self.storage_failing.store(false, Release);
            self.in_flight.settle(id, || Outcome::Stored);
        }
        trusted
    }

    /// The content file takes no more.
    pub(crate) fn cannot_store(&self, error: &io::Error) {
        self.counters.failed(error);
        if !self.storage_failing.swap(true, Release) {
            tracing::error!(layer = %self.key(), %error, "cannot write the content file, serving without keeping");
        }
    }

    pub(crate) fn is_storage_failing(&self) -> bool {
        !self.engine.keeping.is_on() || self.storage_failing.load(Acquire) || self.unsynced.is_failing()
    }

    /// Chunks of `member` do not match. They are asked for again from the origin, twice at most; then whoever waits
    /// gets an error.
    pub(crate) fn refuse(
        self: &Arc<Self>,
        window: &Arc<Window>,
        member: &Member,
        bad: Vec<(ChunkId, String)>,
    ) {
        self.counters.verify_failures.fetch_add(1, Relaxed);
        let source = self.source();
        source.distrust_range(member.span.clone());
        if window.attempt < SECOND_CHANCES {
            let chunks: Vec<_> = bad.iter().map(|(id, _)| *id).collect();
            let member = Member { chunks, passing: false, ..member.clone() };
            let class = window.class_at(member.span.start);
            let again = Window::new(vec![member.clone()], class, window.attempt + 1);
            let again = Arc::new(if class == Class::Demand { again.waited_for() } else { again });
            if self.in_flight.move_over(&member.chunks, window, &again) {
                tracing::warn!(layer = %self.key(), span = ?member.span, source = source.describe(),
                    "bytes do not match their digest, asking the origin again");
                self.engine.runtime.spawn(receive(Arc::clone(self), again, None));
            }
            return;
        }
        for (id, reason) in bad {
            let error = ReadError::Corrupt { chunk: id.0, reason: reason.into() };
            tracing::error!(layer = %self.key(), %error, span = ?member.span, source = source.describe(),
                "the blob does not match its TOC");
            self.counters.failed(&error);
            self.in_flight.settle_of(id, window, || Outcome::Failed(error));
        }
    }
}
