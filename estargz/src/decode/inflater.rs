//! Inflating in one go.

use std::fmt;

use libdeflater::Decompressor;

use super::{DecodeError, MemberStream};
use crate::limits;

/// A buffer that has grown beyond this many bytes is given back once it is not needed any more.
const KEEP_LEN: usize = 8 << 20;

/// Inflates members in one go. Keeps its buffer: make one for each thread that decodes.
pub struct Inflater {
    libdeflate: Decompressor,
    buffer: Vec<u8>,
}

impl Inflater {
    /// An inflater without a buffer.
    pub fn new() -> Self {
        Self { libdeflate: Decompressor::new(), buffer: Vec::new() }
    }

    /// The first `need` uncompressed bytes of what starts at the beginning of `member`. What `member` has beyond
    /// them (padding, tar headers, further gzip members) is ignored. `need` is at most [`limits::INFLATE_LEN`].
    pub fn inflate(&mut self, member: &[u8], need: u64) -> Result<&[u8], DecodeError> {
        if need > limits::INFLATE_LEN {
            return Err(DecodeError::TooLong { needed: need });
        }
        let len = need as usize;
        if !self.inflate_whole(member, need) {
            self.inflate_prefix(member, need)?;
        }
        self.buffer.get(..len).ok_or(DecodeError::Short { inflated: self.buffer.len() as u64, needed: need })
    }

    /// Inflates all of a gzip member, twice as fast as a stream. Needs room for all that the member holds, which
    /// its last four bytes tell (RFC 1952, ISIZE) if `member` ends where it ends; else says false.
    fn inflate_whole(&mut self, member: &[u8], need: u64) -> bool {
        let Some(whole) = member.last_chunk().map(|len| u64::from(u32::from_le_bytes(*len))) else {
            return false;
        };
        if whole < need || whole > need + limits::INFLATE_TRAILER_LEN {
            return false;
        }
        self.make_room(whole as usize);
        let inflated = self.libdeflate.gzip_decompress(member, &mut self.buffer);
        inflated.is_ok_and(|inflated| inflated as u64 >= need)
    }

    /// Inflates as much as is needed and no more, over as many gzip members as it takes.
    fn inflate_prefix(&mut self, member: &[u8], need: u64) -> Result<(), DecodeError> {
        self.make_room(0);
        let mut stream = MemberStream::new(need);
        stream.push(member, &mut |_, piece| self.buffer.extend_from_slice(piece))?;
        stream.finish()
    }

    fn make_room(&mut self, len: usize) {
        if self.buffer.capacity() > KEEP_LEN && len <= KEEP_LEN {
            self.buffer = Vec::new();
        }
        self.buffer.resize(len, 0);
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("buffer", &self.buffer.len()).finish_non_exhaustive()
    }
}
