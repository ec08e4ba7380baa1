//! The blob as a sequence of pieces, each one gzip member, none needing another.
//!
//! A member begins at the start of the blob, at the content of every file that is not empty, at every further
//! chunk of a long file, and (in the assembler) at the table of contents. The headers of the next files thus
//! lie at the end of the member before; a long run of them is cut, so that no piece grows with the layer.

use std::io;

use super::plan::{Element, Entry, Part, Plan};

/// Headers after a chunk, from which on they get a member of their own.
const MAX_TAIL: u64 = 1 << 20;

/// A chunk of a file in a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Where in the file.
    pub(super) file_offset: u64,
    /// Where in the piece, before compression.
    pub(super) inner_offset: u64,
    /// How many bytes.
    pub(super) len: u64,
    /// The file ends with this chunk.
    pub(super) last: bool,
    /// The chunk says its size in the table of contents: it is a full one.
    pub(super) full: bool,
}

/// What one gzip member holds.
#[derive(Debug, Default)]
pub struct Piece {
    parts: Vec<Part>,
    pub(super) slots: Vec<Slot>,
    len: u64,
}

/// The pieces of a plan, in the order of the blob.
#[derive(Debug)]
pub struct Pieces<'plan> {
    plan: &'plan Plan,
    elements: std::slice::Iter<'plan, Element>,
    /// The file whose content is being cut, and how much of it has been.
    open: Option<(&'plan Entry, u64)>,
    current: Piece,
}

// === impl Piece ===

impl Piece {
    /// Bytes before compression.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the piece holds nothing; no piece of a plan does.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the piece is made of, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Fills `buffer` with the piece's bytes; `read_at` fills a slice from a place in the source stream.
    pub fn read(
        &self,
        buffer: &mut Vec<u8>,
        mut read_at: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        buffer.clear();
        for part in &self.parts {
            let at = buffer.len();
            match part {
                Part::Made(bytes) => buffer.extend_from_slice(bytes),
                Part::Zeros(len) => buffer.resize(at + to_usize(*len)?, 0),
                Part::Source { offset, len } => {
                    buffer.resize(at + to_usize(*len)?, 0);
                    read_at(*offset, buffer.get_mut(at..).unwrap_or_default())?;
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, part: Part) {
        let len = part.len();
        if len == 0 {
            return;
        }
        self.len += len;
        if let (Some(Part::Source { offset, len: before }), Part::Source { offset: next, .. }) =
            (self.parts.last_mut(), &part)
            && *offset + *before == *next
        {
            *before += len;
            return;
        }
        self.parts.push(part);
    }

    /// Bytes after the last chunk.
    fn tail(&self) -> u64 {
        self.len - self.slots.last().map_or(0, |slot| slot.inner_offset + slot.len)
    }
}

// === impl Pieces ===

impl<'plan> Pieces<'plan> {
    pub(super) fn new(plan: &'plan Plan) -> Self {
        Self { plan, elements: plan.elements.iter(), open: None, current: Piece::default() }
    }

    /// Whether a chunk of `entry` may not join the current member.
    fn needs_member(&self, entry: &Entry) -> bool {
        let current = &self.current;
        // The first chunk of a member has no inner offset: readers find a member's end by the next such chunk.
        current.len > 0 && (current.slots.is_empty() || entry.landmark || current.len >= self.plan.pack_size)
    }

    /// Adds one chunk of the open file; gives the finished piece if the chunk begins a new one.
    fn add_chunk(&mut self, entry: &'plan Entry, from: u64) -> Option<Piece> {
        let finished = self.needs_member(entry).then(|| std::mem::take(&mut self.current));
        let size = entry.header.size;
        let len = self.plan.chunk_size.min(size - from);
        let slot = Slot {
            file_offset: from,
            inner_offset: self.current.len,
            len,
            last: from + len == size,
            full: len == self.plan.chunk_size,
        };
        for part in entry.content(from, len) {
            self.current.push(part);
        }
        self.current.slots.push(slot);
        if slot.last {
            self.current.push(entry.padding(self.plan.stream_end()));
            self.open = None;
        } else {
            self.open = Some((entry, from + len));
        }
        finished
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some((entry, from)) = self.open {
                match self.add_chunk(entry, from) {
                    Some(piece) => return Some(piece),
                    None => continue,
                }
            }
            let Some(element) = self.elements.next() else {
                let last = std::mem::take(&mut self.current);
                return (!last.is_empty()).then_some(last);
            };
            let full = self.current.tail() >= MAX_TAIL;
            let finished = full.then(|| std::mem::take(&mut self.current));
            match element {
                Element::Blocks(blocks) => self.current.push(blocks.clone()),
                Element::Entry(entry) => {
                    self.current.push(entry.head.clone());
                    self.open = (entry.header.size > 0).then_some((entry, 0));
                }
            }
            if finished.is_some() {
                return finished;
            }
        }
    }
}

// === impl Part ===

impl Part {
    /// How many bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Source { len, .. } | Self::Zeros(len) => *len,
            Self::Made(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn to_usize(len: u64) -> io::Result<usize> {
    usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))
}
