//! Contents of regular files while a TOC is read: their chunks, in the order of the TOC.
//!
//! A file's chunks must follow its entry in file order and tile it exactly. That makes the check a running
//! offset, and a file's chunks a run of the list.

use super::{Problem, TocError, entry::Entry, names::Slot};
use crate::{Digest, limits};

/// A chunk as the TOC has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TocChunk {
    /// Where in the blob its member starts.
    pub offset: u64,
    pub inner_offset: u64,
    /// Where in its file it goes.
    pub file_offset: u64,
    pub len: u64,
    pub digest: Digest,
    pub node: Slot,
}

/// The content of a file: a run of [`Contents::chunks`], and their length together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub node: Slot,
    pub first: u32,
    pub count: u32,
    pub len: u64,
}

#[derive(Debug)]
pub(super) struct Contents {
    toc_offset: u64,
    pub chunks: Vec<TocChunk>,
    /// Offsets of all members that a TOC entry names, also of entries that came to nothing: where one
    /// starts, the one before ends.
    pub members: Vec<u64>,
    current: Current,
}

/// What chunk entries belong to.
#[derive(Debug)]
enum Current {
    /// Nothing that has content.
    Nothing,
    /// A file that is not shown.
    Hidden,
    File(File),
}

#[derive(Debug)]
struct File {
    name: String,
    node: Slot,
    size: u64,
    digest: Option<Digest>,
    first: u32,
    /// Bytes that the chunks so far cover.
    covered: u64,
    /// Some chunk came without a digest.
    unverified: bool,
}

impl Contents {
    pub(super) fn new(toc_offset: u64) -> Self {
        Self { toc_offset, chunks: Vec::new(), members: Vec::new(), current: Current::Nothing }
    }

    /// Begins the regular file `node`, whose entry is also its first chunk.
    pub(super) fn begin(&mut self, entry: &mut Entry, node: Slot) -> Result<(), Problem> {
        let size = unsigned("its size", entry.size)?;
        let first = self.chunks.len() as u32;
        let digest = entry.digest.0;
        let name = std::mem::take(&mut entry.name);
        self.current = Current::File(File { name, node, size, digest, first, covered: 0, unverified: false });
        if size > 0 { self.chunk(entry) } else { Ok(()) }
    }

    /// Begins a regular file that is not shown.
    pub(super) fn begin_hidden(&mut self, entry: &Entry) {
        self.current = Current::Hidden;
        if entry.size > 0 {
            self.note_member(entry);
        }
    }

    /// Adds a chunk to the file begun last.
    pub(super) fn chunk(&mut self, entry: &Entry) -> Result<(), Problem> {
        self.note_member(entry);
        let file = match &mut self.current {
            Current::File(file) => file,
            Current::Hidden => return Ok(()),
            Current::Nothing => return Err(Problem::Nonsense("is a chunk that follows no regular file")),
        };
        let file_offset = unsigned("its chunk offset", entry.chunk_offset)?;
        if file_offset != file.covered {
            return Err(Problem::Nonsense("has chunks that overlap or leave a gap"));
        }
        // No length means the rest of the file.
        let rest = file.size - file.covered;
        let len = match unsigned("its chunk size", entry.chunk_size)? {
            0 => rest,
            len => len,
        };
        if len == 0 || len > rest {
            return Err(Problem::Nonsense("has a chunk beyond its end"));
        }
        let offset = unsigned("its offset", entry.offset)?;
        let inner_offset = unsigned("its inner offset", entry.inner_offset)?;
        if offset >= self.toc_offset {
            return Err(Problem::OverLimit {
                what: "the offset of its content",
                found: offset,
                limit: self.toc_offset,
            });
        }
        if offset == 0 && inner_offset == 0 {
            return Err(Problem::Nonsense("has content without an offset"));
        }
        file.covered += len;
        file.unverified |= entry.chunk_digest.0.is_none();
        let digest = entry.chunk_digest.0.or(file.digest).unwrap_or(Digest::from_bytes([0; 32]));
        self.chunks.push(TocChunk { offset, inner_offset, file_offset, len, digest, node: file.node });
        Ok(())
    }

    /// Ends the file begun last, once an entry comes that is not a chunk, and tells what chunks it has.
    pub(super) fn end(&mut self) -> Result<Option<Run>, TocError> {
        let Current::File(file) = std::mem::replace(&mut self.current, Current::Nothing) else {
            return Ok(None);
        };
        let count = self.chunks.len() as u32 - file.first;
        if file.covered != file.size {
            return Err(TocError::entry(
                &file.name,
                Problem::Nonsense("has chunks that do not reach its end"),
            ));
        }
        // The digest of a file is that of its only chunk; it does not help where there are more.
        if file.unverified && (count > 1 || file.digest.is_none()) {
            return Err(TocError::entry(&file.name, Problem::NoDigest));
        }
        Ok(Some(Run { node: file.node, first: file.first, count, len: file.size }))
    }

    /// The name to show for a chunk: the file's that it belongs to.
    pub(super) fn name_of<'a>(&'a self, chunk: &'a Entry) -> &'a str {
        match &self.current {
            Current::File(file) => &file.name,
            _ => &chunk.name,
        }
    }

    fn note_member(&mut self, entry: &Entry) {
        let offset = u64::try_from(entry.offset).ok().filter(|&offset| offset < self.toc_offset);
        if let Some(offset) = offset.filter(|offset| self.members.last() != Some(offset)) {
            self.members.push(offset);
        }
    }
}

/// A number that must not be negative.
pub(super) fn unsigned(what: &'static str, number: i64) -> Result<u64, Problem> {
    u64::try_from(number).map_err(|_| Problem::Negative { what, found: number })
}

/// A number that must not be negative or beyond `limit`.
pub(super) fn bounded(what: &'static str, number: i64, limit: u32) -> Result<u32, Problem> {
    let found = unsigned(what, number)?;
    match u32::try_from(found) {
        Ok(number) if number <= limit => Ok(number),
        _ => Err(Problem::OverLimit { what, found, limit: limit.into() }),
    }
}

/// Checks that a chunk can be inside of its member at all, which spans `compressed` bytes.
pub(super) fn check_ratio(chunk: &TocChunk, compressed: u64) -> Result<(), Problem> {
    let found = chunk.inner_offset.saturating_add(chunk.len);
    let limit = compressed.saturating_mul(limits::INFLATE_RATIO);
    if found <= limit {
        Ok(())
    } else {
        Err(Problem::OverLimit { what: "the end of a chunk in its compressed member", found, limit })
    }
}
