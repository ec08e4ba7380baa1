//! Files and chunks: where bytes of a file are in the content file and in the blob.

use std::ops::Range;

use zerocopy::little_endian::U32;

use super::{Index, IndexError, Kind, NodeId, layout::ChunkRecord, run};
use crate::{Digest, limits};

/// The number of a chunk in its layer. Chunks are numbered in blob order, by (member, inner offset), so that
/// a piece of the blob is a range of chunk numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub u32);

/// Where the bytes of a regular file are in the content file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLayout {
    /// First byte, a multiple of [`limits::CONTENT_ALIGN`].
    pub content_offset: u64,
    /// Length of the file, in bytes.
    pub size: u64,
}

/// A chunk: a run of a file's bytes with a digest of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The file it belongs to.
    pub node: NodeId,
    /// Where in the blob the compressed member starts that holds the chunk.
    pub member_start: u64,
    /// Where in the blob the next member with file contents (or the TOC) starts. What is between belongs to this one.
    pub member_end: u64,
    /// Where in the uncompressed member the chunk starts.
    pub inner_offset: u64,
    /// Uncompressed length, never 0.
    pub len: u64,
    /// Where in the content file the chunk goes.
    pub content_offset: u64,
    /// What its uncompressed bytes must hash to.
    pub digest: Digest,
}

/// Numbers of the chunks that hold a part of a file, in file order.
#[derive(Debug, Clone)]
pub struct Chunks<'a> {
    ids: std::slice::Iter<'a, U32>,
}

impl<B: AsRef<[u8]>> Index<B> {
    /// Where the content of the regular file `id` is. An empty file has no content, and an offset without meaning.
    pub fn file(&self, id: NodeId) -> Result<FileLayout, IndexError> {
        let file = self.node(id)?.of_kind(Kind::Reg)?.record();
        let content_offset = u64::from(file.content_page.get()) * limits::CONTENT_ALIGN;
        Ok(FileLayout { content_offset, size: file.size.get() })
    }

    /// The chunks that hold the bytes `range` of the regular file `id`, in file order. What is beyond the end of
    /// the file is ignored.
    pub fn chunks_of(&self, id: NodeId, range: Range<u64>) -> Result<Chunks<'_>, IndexError> {
        let FileLayout { content_offset, size } = self.file(id)?;
        let file = self.node(id)?.record();
        let extents = run(self.extents(), file.a, file.b.get() as usize)
            .ok_or(IndexError::Damaged { what: "extents are outside of their table" })?;
        let (start, end) =
            (content_offset.saturating_add(range.start), content_offset.saturating_add(range.end.min(size)));
        if start >= end {
            return Ok(Chunks { ids: [].iter() });
        }
        let chunks = self.chunks();
        let place = |id: &U32| {
            chunks.get(id.get() as usize).map(|chunk| (chunk.content_offset.get(), chunk.len.get()))
        };
        let first =
            extents.partition_point(|id| place(id).is_some_and(|(at, len)| at.saturating_add(len) <= start));
        let last = extents.partition_point(|id| place(id).is_some_and(|(at, _)| at < end));
        Ok(Chunks { ids: extents.get(first..last).unwrap_or_default().iter() })
    }

    /// The chunk with number `id`.
    pub fn chunk(&self, id: ChunkId) -> Result<Chunk, IndexError> {
        let record: &ChunkRecord = self.chunks().get(id.0 as usize).ok_or(IndexError::NoSuchChunk(id))?;
        let damaged = IndexError::Damaged { what: "a chunk is outside of the tables" };
        let members = self.members();
        let member = record.member.get() as usize;
        let next = member.checked_add(1).and_then(|next| members.get(next));
        Ok(Chunk {
            node: NodeId::new(record.node.get()).ok_or(damaged.clone())?,
            member_start: members.get(member).ok_or(damaged)?.get(),
            member_end: next.map_or(self.toc_offset(), |next| next.get()),
            inner_offset: record.inner_offset.get(),
            len: record.len.get(),
            content_offset: record.content_offset.get(),
            digest: Digest::from_bytes(record.digest),
        })
    }

    /// The chunks of all members that start at or after `blob.start` and before `blob.end`, as a range of chunk numbers.
    pub fn chunks_in(&self, blob: Range<u64>) -> Range<u32> {
        let members = self.members();
        let chunks = self.chunks();
        let first_at = |offset: u64| {
            let member = members.partition_point(|start| start.get() < offset);
            chunks.partition_point(|chunk| (chunk.member.get() as usize) < member) as u32
        };
        first_at(blob.start)..first_at(blob.end)
    }
}

impl Iterator for Chunks<'_> {
    type Item = ChunkId;

    fn next(&mut self) -> Option<ChunkId> {
        self.ids.next().map(|id| ChunkId(id.get()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ids.size_hint()
    }
}

impl ExactSizeIterator for Chunks<'_> {}
