//! Members too long to be held: they are inflated, hashed and written piece by piece as they arrive.
//!
//! A chunk's bytes are in the content file before its digest is known; its bit is set only if that matched. Steps are
//! done by the decoding threads, one at a time, at normal priority: they write.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use estargz::{Chunk, ChunkId, Sha256, decode::MemberStream};
use tokio::sync::oneshot;

use super::{
    body::Body,
    in_flight::Outcome,
    window::{Member, Window},
};
use crate::{Layer, ReadError, layer::unsynced::Epoch};

/// Uncompressed bytes for which memory is counted while a piece is inflated; the stream gives them on in smaller ones.
const PIECE: u64 = 128 << 10;

/// A member on its way into the content file.
pub(super) struct Large {
    layer: Arc<Layer>,
    window: Arc<Window>,
    member: Member,
    state: State,
}

struct State {
    stream: MemberStream,
    /// By inner offset, without overlaps; those before `first` are done.
    chunks: Vec<ChunkId>,
    first: usize,
    /// The first one, if it was begun.
    current: Option<Progress>,
    bad: Vec<(ChunkId, String)>,
}

struct Progress {
    id: ChunkId,
    chunk: Chunk,
    hash: Sha256,
    failed: Option<std::io::Error>,
    epoch: Epoch,
}

// === impl Large ===

impl Large {
    pub(super) fn new(layer: &Arc<Layer>, window: &Arc<Window>, member: &Member) -> Self {
        let (stream, chunks) = (MemberStream::new(member.need), member.chunks.clone());
        let state = State { stream, chunks, first: 0, current: None, bad: Vec::new() };
        Self { layer: Arc::clone(layer), window: Arc::clone(window), member: member.clone(), state }
    }

    /// Takes the member off `body`.
    pub(super) async fn receive(mut self, body: &mut Body<'_>) -> Result<(), ReadError> {
        let end = self.member.span.end;
        let mut at = self.member.span.start;
        while at < end && !self.state.stream.is_done() && self.state.bad.is_empty() {
            let piece = body.piece(end).await?;
            at += piece.len() as u64;
            self = self.step(body, piece).await?;
        }
        let short = self.state.stream.finish().err();
        let reason = short.as_ref().map_or_else(String::new, ToString::to_string);
        let State { chunks, first, bad, .. } = &mut self.state;
        bad.extend(chunks.iter().skip(*first).map(|id| (*id, reason.clone())));
        if !self.state.bad.is_empty() {
            let bad = std::mem::take(&mut self.state.bad);
            self.layer.refuse(&self.window, &self.member, bad);
        }
        Ok(())
    }

    /// Has a decoding thread work on the next piece.
    async fn step(self, body: &mut Body<'_>, piece: Bytes) -> Result<Self, ReadError> {
        let layer = Arc::clone(&self.layer);
        let charge = body.charge(self.member.span.start, piece.len() as u64 + PIECE).await;
        let class = self.window.class_at(self.member.span.start);
        let (done, stepped) = oneshot::channel();
        let mut large = self;
        layer.engine.pool.call(class, move || {
            large.push(&piece);
            drop((piece, charge));
            let _ = done.send(large);
        });
        stepped.await.map_err(|_| ReadError::Closed)
    }

    fn push(&mut self, piece: &[u8]) {
        let State { stream, chunks, first, current, bad } = &mut self.state;
        let layer = &self.layer;
        let inflated = stream.push(piece, &mut |offset, bytes| {
            let range = offset..offset + bytes.len() as u64;
            while let Some(&id) = chunks.get(*first) {
                let mut progress = match current.take().map_or_else(|| Progress::begin(layer, id), Ok) {
                    Ok(progress) => progress,
                    Err(reason) => {
                        bad.push((id, reason));
                        *first += 1;
                        continue;
                    }
                };
                progress.add(layer, &range, bytes);
                if progress.end() > range.end {
                    *current = Some(progress);
                    break;
                }
                *first += 1;
                if let Err(reason) = progress.finish(layer) {
                    bad.push((id, reason));
                }
            }
        });
        if let Err(error) = inflated {
            let error = error.to_string();
            bad.extend(chunks.iter().skip(*first).map(|id| (*id, error.clone())));
            *first = chunks.len();
        }
    }
}

// === impl Progress ===

impl Progress {
    fn begin(layer: &Layer, id: ChunkId) -> Result<Self, String> {
        let chunk = layer.chunk(id).map_err(|error| error.to_string())?;
        Ok(Self { id, chunk, hash: Sha256::new(), failed: None, epoch: layer.begin_write() })
    }

    fn end(&self) -> u64 {
        self.chunk.inner_offset + self.chunk.len
    }

    /// Takes the part of `bytes`, at `range` in the member, that is the chunk's.
    fn add(&mut self, layer: &Arc<Layer>, range: &Range<u64>, bytes: &[u8]) {
        let (start, end) = (self.chunk.inner_offset.max(range.start), self.end().min(range.end));
        let part = (start - range.start) as usize..end.saturating_sub(range.start) as usize;
        let part = bytes.get(part).unwrap_or_default();
        self.hash.update(part);
        if self.failed.is_none() {
            let place = self.chunk.content_offset + (start - self.chunk.inner_offset);
            self.failed = layer.files.content.write(part, place).err();
        }
    }

    /// All bytes are there. An error says why they are not the right ones.
    fn finish(&mut self, layer: &Arc<Layer>) -> Result<(), String> {
        let actual = std::mem::replace(&mut self.hash, Sha256::new()).finish();
        if actual != self.chunk.digest {
            return Err(format!("content has digest {actual}, expected {}", self.chunk.digest));
        }
        let _known = layer.making_known();
        match self.failed.take() {
            None => {
                if !layer.stored(self.id, self.chunk.len, self.epoch) {
                    let error =
                        ReadError::from(std::io::Error::other("a sync failed while the chunk was written"));
                    layer.in_flight.settle(self.id, || Outcome::Failed(error));
                }
            }
            Some(error) => {
                layer.cannot_store(&error);
                let error = ReadError::from(error);
                layer.in_flight.settle(self.id, || Outcome::Failed(error));
            }
        }
        Ok(())
    }
}
