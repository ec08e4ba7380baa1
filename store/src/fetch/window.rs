//! Windows: pieces of the blob that are asked for in one request.
//!
//! A window is made of whole members, in blob order, and names the chunks that it will deliver. What lies between its
//! members is received and thrown away, so gaps are short; a plan's windows name what lies there, too, which may be kept.

use std::{
    cmp::Reverse,
    ops::Range,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
};

use estargz::{Chunk, ChunkId, IndexError};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};

use super::{body::STALL, link::Claim, reach::Reach};
use crate::Class;

/// Members whose chunks end later than this in them are decoded as they arrive instead of being held.
pub(crate) const STREAM_LEN: u64 = 8 << 20;
/// What members are inflated to that need no more than this counts with their compressed bytes.
const SHORT_LEN: u64 = 256 << 10;
/// Bytes of chunks that are here already which are received once more to save a request.
pub(crate) const LONGEST_GAP: u64 = 32 << 10;
/// A window with this many chunks takes no further members, however few are on their way.
pub(crate) const MOST_CHUNKS: u32 = 4096;
/// Chunks of one member that are looked at: bounds the work for a TOC that packs all its files into one. Each window of
/// such a member inflates it from its start, so this is large enough that a million chunks take some dozens of them.
const MOST_OF_MEMBER: u32 = 1 << 15;

/// A piece of the blob that is, or will be, asked for in one request.
#[derive(Debug)]
pub(crate) struct Window {
    /// In blob order, never empty.
    pub(crate) members: Vec<Member>,
    /// How often its bytes were asked for before and did not match.
    pub(crate) attempt: u32,
    /// Asked for because another window with the same members is stuck.
    pub(crate) is_hedge: bool,
    hedged: AtomicBool,
    /// Since when the source has owed bytes, if it does.
    owed: Mutex<Option<Instant>>,
    /// What it was asked for as.
    base: Class,
    /// Up to where in the blob somebody waits, or has waited, for the bytes. 0 while nobody has.
    waited: watch::Sender<u64>,
    /// When somebody began to wait last, as a number of [`Link::tick`](super::link::Link::tick).
    used: AtomicU64,
    tail: Option<Tail>,
}

/// The end of a window that goes on behind what was missed.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Where in the blob it starts.
    pub(crate) start: u64,
    /// There is a bounded number of them.
    pub(crate) _turn: OwnedSemaphorePermit,
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
    /// It lies between what is wanted: it is on its way only once its bytes come, and if there is memory for it.
    pub(crate) passing: bool,
}

/// What windows are cut from.
pub(crate) trait Chunks {
    fn count(&self) -> u32;
    /// The chunk's place, checked for sense.
    fn chunk(&self, id: ChunkId) -> Result<Chunk, IndexError>;
    /// Whether it is neither here nor on its way.
    fn is_free(&self, id: ChunkId) -> bool;
    /// A window with this many chunks takes no further members.
    fn most_chunks(&self) -> u32 {
        MOST_CHUNKS
    }
}

// === impl Member ===

impl Member {
    /// Whether what it is inflated to counts by itself, from when that begins.
    pub(crate) fn is_long(&self) -> bool {
        self.need > SHORT_LEN
    }
}

// === impl Window ===

impl Window {
    pub(crate) fn new(members: Vec<Member>, class: Class, attempt: u32) -> Self {
        let (hedged, owed, used) = Default::default();
        let waited = watch::Sender::new(0);
        Self { members, attempt, is_hedge: false, hedged, owed, base: class, waited, used, tail: None }
    }

    /// The same window, of which only what is before `tail` is asked for as its class says.
    pub(crate) fn with_tail(self, tail: Tail) -> Self {
        Self { tail: Some(tail), ..self }
    }

    /// The same window, all of which somebody waits for.
    pub(crate) fn waited_for(self) -> Self {
        self.waited.send_replace(self.span().end);
        self
    }

    /// A second window with those members of this one that hold any of `wanted`, for somebody who cannot wait for this
    /// one. There is only one such. Long members are written before they are verified, which two at a time must not be.
    pub(crate) fn hedge(&self, wanted: &[ChunkId]) -> Option<Self> {
        let is_wanted = |member: &&Member| {
            member.need <= STREAM_LEN && wanted.iter().any(|id| member.chunks.binary_search(id).is_ok())
        };
        let wanted = self.members.iter().filter(is_wanted).cloned();
        let members: Vec<_> = wanted.map(|member| Member { passing: false, ..member }).collect();
        if self.is_hedge || members.is_empty() || self.hedged.swap(true, AcqRel) {
            return None;
        }
        let hedge = Self { is_hedge: true, ..Self::new(members, Class::Demand, self.attempt) };
        Some(hedge.waited_for())
    }

    /// The source is asked for bytes from now on, or gave some.
    pub(crate) fn owes(&self, owes: bool) {
        *self.owed.lock() = owes.then(Instant::now);
    }

    /// Whether the source has given nothing for a while, though it was asked.
    pub(crate) fn is_stalled(&self) -> bool {
        self.owed.lock().is_some_and(|since| since.elapsed() >= STALL)
    }

    /// How urgent the whole of it is.
    pub(crate) fn class(&self) -> Class {
        if *self.waited.borrow() > 0 { Class::Demand } else { self.base }
    }

    /// How urgent its bytes from `at` on are.
    pub(crate) fn class_at(&self, at: u64) -> Class {
        match self.claim_at(at) {
            Claim::Waited => Class::Demand,
            Claim::Near => self.base,
            Claim::Tail(_) | Claim::Background => Class::Background,
        }
    }

    /// What its bytes from `at` on may claim of the link.
    pub(crate) fn claim_at(&self, at: u64) -> Claim {
        if at < *self.waited.borrow() {
            Claim::Waited
        } else if self.is_tail(at) {
            Claim::Tail(Reverse(self.used.load(Relaxed)))
        } else if self.base == Class::Background {
            Claim::Background
        } else {
            Claim::Near
        }
    }

    /// Whether what is at `at` was asked for only because it follows.
    pub(crate) fn is_tail(&self, at: u64) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.start <= at)
    }

    /// Somebody waits for `chunk` from now on, `tick` says when. Says whether the window became more urgent as a whole.
    pub(crate) fn wait_for(&self, chunk: ChunkId, tick: u64) -> bool {
        self.used.fetch_max(tick, Relaxed);
        let before = self.class();
        let next = |member: &Member| member.chunks.last().is_some_and(|last| *last < chunk);
        let member = self.members.get(self.members.partition_point(next));
        let end = member.map_or_else(|| self.span().end, |member| member.span.end);
        self.waited.send_if_modified(|waited| {
            let further = end > *waited;
            *waited = end.max(*waited);
            further
        });
        before > Class::Demand
    }

    /// Waits until somebody waits for the bytes at `at`.
    pub(crate) async fn awaited(&self, at: u64) {
        let _ = self.waited.subscribe().wait_for(|waited| *waited > at).await;
    }

    /// The bytes to ask for.
    pub(crate) fn span(&self) -> Range<u64> {
        let start = self.members.first().map_or(0, |member| member.span.start);
        start..self.members.last().map_or(start, |member| member.span.end)
    }

    /// How many bytes that is.
    pub(crate) fn len(&self) -> u64 {
        let span = self.span();
        span.end.saturating_sub(span.start)
    }

    /// All chunks that it is to deliver.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.members.iter().filter(|member| !member.passing).flat_map(|member| member.chunks.iter().copied())
    }

    /// Those and what passes.
    pub(crate) fn all_chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.members.iter().flat_map(|member| member.chunks.iter().copied())
    }

    /// Cuts the window around `wanted`, which must be free. It ends before a chunk that makes no sense.
    pub(crate) fn cut(from: &impl Chunks, wanted: ChunkId, reach: Reach) -> Result<Vec<Member>, IndexError> {
        let Group { member, ids, seen } = group(from, wanted, Some(wanted))?;
        let Some(member) = member else { return Err(IndexError::NoSuchChunk(wanted)) };
        let start = member.span.start;
        let mut cut = Cut { from, chunks: member.chunks.len() as u32, seen, members: vec![member] };
        let mut next = ids.end;
        while next < from.count() && cut.has_room() {
            let Ok(group) = group(from, ChunkId(next), None) else { break };
            let last = cut.members.last().map_or(start, |member| member.span.end);
            if !cut.fits(&group, |span| {
                span.end.saturating_sub(start) <= reach.forward
                    && span.start >= last
                    && span.start - last <= LONGEST_GAP
            }) {
                break;
            }
            next = group.ids.end;
            cut.add(group, false);
        }
        let mut previous = ids.start;
        while previous > 0 && cut.has_room() {
            let Ok(group) = group(from, ChunkId(previous - 1), None) else { break };
            let first = cut.members.first().map_or(start, |member| member.span.start);
            if !cut.fits(&group, |span| {
                start.saturating_sub(span.start) <= reach.backward
                    && span.end <= first
                    && first - span.end <= LONGEST_GAP
            }) {
                break;
            }
            previous = group.ids.start;
            cut.add(group, true);
        }
        Ok(cut.members)
    }
}

/// A window in the making.
struct Cut<'a, C> {
    from: &'a C,
    chunks: u32,
    /// Chunks that were looked at.
    seen: u32,
    members: Vec<Member>,
}

impl<C: Chunks> Cut<'_, C> {
    fn has_room(&self) -> bool {
        self.chunks < self.from.most_chunks() && self.seen < MOST_OF_MEMBER
    }

    /// Whether to go on over `group`. One without free chunks is a gap, at the place of its first chunk.
    fn fits(&self, group: &Group, near: impl Fn(Range<u64>) -> bool) -> bool {
        match &group.member {
            Some(member) => member.need <= STREAM_LEN && near(member.span.clone()),
            None => {
                let chunk = self.from.chunk(ChunkId(group.ids.start));
                chunk.is_ok_and(|chunk| near(chunk.member_start..chunk.member_end))
            }
        }
    }

    fn add(&mut self, group: Group, in_front: bool) {
        self.seen += group.seen;
        let Some(member) = group.member else { return };
        self.chunks += member.chunks.len() as u32;
        self.members.insert(if in_front { 0 } else { self.members.len() }, member);
    }
}

/// What is taken of a member.
struct Group {
    /// None if none of the chunks that were looked at is free.
    member: Option<Member>,
    /// The numbers of all chunks of the member, also of those that were not looked at.
    ids: Range<u32>,
    /// How many were looked at.
    seen: u32,
}

/// The member that the chunk `at` is in, with those of its chunks that are free. If one of them is wanted, it is taken
/// whatever it overlaps. Of a member with very many chunks it takes those around the wanted one, or the first ones.
fn group(from: &impl Chunks, at: ChunkId, wanted: Option<ChunkId>) -> Result<Group, IndexError> {
    let this = from.chunk(at)?;
    let same = |id: u32| from.chunk(ChunkId(id)).is_ok_and(|chunk| chunk.member_start == this.member_start);
    let first = at.0 - run(at.0, |back| same(at.0 - back));
    let end = at.0 + 1 + run(from.count().saturating_sub(at.0 + 1), |on| same(at.0 + on));
    let ids = first..end;
    let around = wanted.map_or(first, |wanted| wanted.0);
    let near =
        first.max(around.saturating_sub(MOST_OF_MEMBER / 2))..end.min(around.saturating_add(MOST_OF_MEMBER));

    let (mut chunks, mut need) = (Vec::new(), 0);
    for id in near.clone().map(ChunkId) {
        // A damaged index may have anything in between.
        let Some(chunk) = from.chunk(id).ok().filter(|chunk| chunk.member_start == this.member_start) else {
            continue;
        };
        let inner = chunk.inner_offset..chunk.inner_offset + chunk.len;
        // An honest member's chunks do not overlap. Hashing one byte for many of them must not be had cheaply.
        let overlaps =
            inner.start < need || wanted.is_some_and(|wanted| id < wanted && inner.end > this.inner_offset);
        if wanted == Some(id) || (!overlaps && from.is_free(id)) {
            chunks.push(id);
            need = inner.end;
        }
    }
    let span = this.member_start..this.member_end.min(this.member_start.saturating_add(longest(need)));
    let member = (!chunks.is_empty()).then_some(Member { span, need, chunks, passing: false });
    Ok(Group { member, ids, seen: near.end - near.start })
}

/// How many of 1, 2, 3... up to `most` are `inside`, which are the first ones. Asks about few of them.
fn run(most: u32, inside: impl Fn(u32) -> bool) -> u32 {
    let (mut known, mut step) = (0, 1);
    while step <= most - known && inside(known + step) {
        known += step;
        step = step.saturating_mul(2);
    }
    while step > 0 {
        if step <= most - known && inside(known + step) {
            known += step;
        }
        step /= 2;
    }
    known
}

/// Compressed bytes that `need` uncompressed ones can take: DEFLATE stores what does not compress, with 5 bytes
/// for every 64 KiB or less, and a gzip header may hold a name. What follows in a longer member is of no use.
fn longest(need: u64) -> u64 {
    need.saturating_add(need / 16).saturating_add(64 << 10)
}

#[cfg(test)]
mod tests;
