//! Windows: pieces of the blob that are asked for in one request.
//!
//! A window is made of whole members, in blob order, and names the chunks that it will deliver. What lies between its
//! members is received and thrown away, so gaps are short.

use std::ops::Range;

use estargz::{Chunk, ChunkId, IndexError};
use tokio::sync::watch;

use super::reach::Reach;
use crate::Class;

/// Members whose chunks end later than this in them are decoded as they arrive instead of being held.
pub(crate) const STREAM_LEN: u64 = 16 << 20;
/// Bytes of chunks that are here already which are received once more to save a request.
pub(crate) const LONGEST_GAP: u64 = 32 << 10;
/// Most chunks in a window: bounds the work for a TOC that packs all its files into one member.
pub(crate) const MOST_CHUNKS: u32 = 4096;

/// A piece of the blob that is, or will be, asked for in one request.
#[derive(Debug)]
pub(crate) struct Window {
    /// In blob order, never empty.
    pub(crate) members: Vec<Member>,
    /// How often its bytes were asked for before and did not match.
    pub(crate) attempt: u32,
    class: watch::Sender<Class>,
}

/// A compressed member, or its start, and the chunks that are taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Where it is in the blob.
    pub(crate) span: Range<u64>,
    /// Uncompressed bytes that are needed of it.
    pub(crate) need: u64,
    /// By inner offset. No two overlap.
    pub(crate) chunks: Vec<ChunkId>,
}

/// What windows are cut from.
pub(crate) trait Chunks {
    fn count(&self) -> u32;
    /// The chunk's place, checked for sense.
    fn chunk(&self, id: ChunkId) -> Result<Chunk, IndexError>;
    /// Whether it is neither here nor on its way.
    fn is_free(&self, id: ChunkId) -> bool;
}

// === impl Window ===

impl Window {
    pub(crate) fn new(members: Vec<Member>, class: Class, attempt: u32) -> Self {
        Self { members, attempt, class: watch::Sender::new(class) }
    }

    pub(crate) fn class(&self) -> Class {
        *self.class.borrow()
    }

    /// Makes the window as urgent as `class`. Says whether it was less so.
    pub(crate) fn promote(&self, class: Class) -> bool {
        self.class.send_if_modified(|now| {
            let promoted = class < *now;
            *now = class.min(*now);
            promoted
        })
    }

    /// Waits until somebody waits for the window.
    pub(crate) async fn promoted(&self) {
        let _ = self.class.subscribe().wait_for(|class| *class == Class::Demand).await;
    }

    /// The bytes to ask for.
    pub(crate) fn span(&self) -> Range<u64> {
        let start = self.members.first().map_or(0, |member| member.span.start);
        start..self.members.last().map_or(start, |member| member.span.end)
    }

    /// All chunks.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.members.iter().flat_map(|member| member.chunks.iter().copied())
    }

    /// Cuts the window around `wanted`, which must be free.
    pub(crate) fn cut(from: &impl Chunks, wanted: ChunkId, reach: Reach) -> Result<Vec<Member>, IndexError> {
        let (member, ids) = group(from, wanted, Some(wanted))?;
        let Some(member) = member else { return Err(IndexError::NoSuchChunk(wanted)) };
        let start = member.span.start;
        let mut cut = Cut { from, chunks: member.chunks.len() as u32, members: vec![member] };
        let mut next = ids.end;
        while next < from.count() && cut.has_room() {
            let (member, ids) = group(from, ChunkId(next), None)?;
            let last = cut.members.last().map_or(start, |member| member.span.end);
            if !cut.fits(member.as_ref(), ids.start, |span| {
                span.end.saturating_sub(start) <= reach.forward
                    && span.start.saturating_sub(last) <= LONGEST_GAP
            })? {
                break;
            }
            cut.add(member, false);
            next = ids.end;
        }
        let mut previous = ids.start;
        while previous > 0 && cut.has_room() {
            let (member, ids) = group(from, ChunkId(previous - 1), None)?;
            let first = cut.members.first().map_or(start, |member| member.span.start);
            if !cut.fits(member.as_ref(), ids.start, |span| {
                start.saturating_sub(span.start) <= reach.backward
                    && first.saturating_sub(span.end) <= LONGEST_GAP
            })? {
                break;
            }
            cut.add(member, true);
            previous = ids.start;
        }
        Ok(cut.members)
    }
}

/// A window in the making.
struct Cut<'a, C> {
    from: &'a C,
    chunks: u32,
    members: Vec<Member>,
}

impl<C: Chunks> Cut<'_, C> {
    fn has_room(&self) -> bool {
        self.chunks < MOST_CHUNKS
    }

    /// Whether to go on over `member`. One without free chunks is a gap, at the place of its chunk `first`.
    fn fits(
        &self,
        member: Option<&Member>,
        first: u32,
        near: impl Fn(Range<u64>) -> bool,
    ) -> Result<bool, IndexError> {
        match member {
            Some(member) => Ok(member.need <= STREAM_LEN && near(member.span.clone())),
            None => {
                let chunk = self.from.chunk(ChunkId(first))?;
                Ok(near(chunk.member_start..chunk.member_end))
            }
        }
    }

    fn add(&mut self, member: Option<Member>, in_front: bool) {
        let Some(member) = member else { return };
        self.chunks += member.chunks.len() as u32;
        self.members.insert(if in_front { 0 } else { self.members.len() }, member);
    }
}

/// The member that the chunk `at` is in, with those of its chunks that are free, and the numbers of all its chunks. If
/// one of them is wanted, it is taken whatever it overlaps.
fn group(
    from: &impl Chunks,
    at: ChunkId,
    wanted: Option<ChunkId>,
) -> Result<(Option<Member>, Range<u32>), IndexError> {
    let this = from.chunk(at)?;
    let same = |id: u32| from.chunk(ChunkId(id)).is_ok_and(|chunk| chunk.member_start == this.member_start);
    let lowest = at.0.saturating_sub(MOST_CHUNKS / 2);
    let highest = from.count().min(at.0.saturating_add(MOST_CHUNKS / 2));
    let first = (lowest..at.0).rev().take_while(|&id| same(id)).last().unwrap_or(at.0);
    let end = (at.0..highest).take_while(|&id| same(id)).last().map_or(at.0 + 1, |last| last + 1);

    let must = wanted.map(|_| this.inner_offset..this.inner_offset + this.len);
    let (mut chunks, mut need) = (Vec::new(), 0);
    for id in (first..end).map(ChunkId) {
        let chunk = from.chunk(id)?;
        let inner = chunk.inner_offset..chunk.inner_offset + chunk.len;
        let is_wanted = wanted == Some(id);
        // An honest member's chunks do not overlap. Hashing one byte for many of them must not be had cheaply.
        let overlaps = inner.start < need
            || must.as_ref().is_some_and(|must| inner.start < must.end && must.start < inner.end);
        if is_wanted || (!overlaps && from.is_free(id)) {
            chunks.push(id);
            need = need.max(inner.end);
        }
    }
    let span = this.member_start..this.member_end.min(this.member_start.saturating_add(longest(need)));
    Ok(((!chunks.is_empty()).then_some(Member { span, need, chunks }), first..end))
}

/// Compressed bytes that `need` uncompressed ones can take: DEFLATE stores what does not compress, with 5 bytes
/// for every 64 KiB or less, and a gzip header may hold a name. What follows in a longer member is of no use.
fn longest(need: u64) -> u64 {
    need.saturating_add(need / 16).saturating_add(64 << 10)
}

#[cfg(test)]
mod tests;
