//! Inflating in one go.

use std::fmt;

use libdeflater::Decompressor;

use super::{DecodeError, MemberStream};
use crate::limits;

/// A buffer that has grown beyond this many bytes is given back by [`Inflater::rest`].
const KEEP_LEN: usize = 1 << 20;

const TAR_BLOCK_LEN: usize = 512;

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
        let need = need as usize;
        if !self.inflate_whole(member, need) {
            self.inflate_prefix(member, need)?;
        }
        self.buffer
            .get(..need)
            .ok_or(DecodeError::Short { inflated: self.buffer.len() as u64, needed: need as u64 })
    }

    /// Like [`Self::inflate`], but gives the buffer away and keeps none.
    pub fn inflate_owned(&mut self, member: &[u8], need: u64) -> Result<Vec<u8>, DecodeError> {
        let inflated = self.inflate(member, need).map(<[u8]>::len);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.truncate(inflated?);
        Ok(buffer)
    }

    /// Whether there is a buffer.
    pub fn holds_memory(&self) -> bool {
        self.buffer.capacity() > 0
    }

    /// To be called when nothing will be inflated for a while: gives the buffer back.
    pub fn release(&mut self) {
        self.buffer = Vec::new();
    }

    /// To be called when what was inflated is not needed any more: gives a long buffer back.
    pub fn rest(&mut self) {
        if self.buffer.capacity() > KEEP_LEN {
            self.buffer = Vec::new();
        }
    }

    /// Inflates all of the first gzip member, twice as fast as a stream. That needs room for all that it holds; says
    /// false where the room does not do.
    fn inflate_whole(&mut self, member: &[u8], need: usize) -> bool {
        let len = whole_len(member, need);
        self.make_room(len);
        let room = self.buffer.get_mut(..len).unwrap_or_default();
        self.libdeflate.gzip_decompress(member, room).is_ok_and(|inflated| inflated >= need)
    }

    /// Inflates as much as is needed and no more, over as many gzip members as it takes.
    fn inflate_prefix(&mut self, member: &[u8], need: usize) -> Result<(), DecodeError> {
        self.buffer.clear();
        let mut stream = MemberStream::new(need as u64);
        stream.push(member, &mut |_, piece| self.buffer.extend_from_slice(piece))?;
        stream.finish()
    }

    fn make_room(&mut self, len: usize) {
        if self.buffer.capacity() < len {
            // Zeros that the system gives need not be written.
            self.buffer = vec![0; len];
        } else if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
    }
}

/// How much the gzip member at the start of `member` is likely to hold. Its last four bytes tell (RFC 1952, ISIZE) if it
/// is the only one. Where several follow one another, which happens where a writer joined what it made in parallel, a
/// payload and its padding.
fn whole_len(member: &[u8], need: usize) -> usize {
    let most = need + limits::INFLATE_TRAILER_LEN as usize;
    let told = member.last_chunk().map_or(0, |len| u32::from_le_bytes(*len) as usize);
    if (need..=most).contains(&told) { told } else { need.next_multiple_of(TAR_BLOCK_LEN) }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn keeps_no_long_buffer() {
        let mut inflater = Inflater::new();
        inflater.make_room(KEEP_LEN + 1);
        inflater.rest();
        assert_eq!(inflater.buffer.capacity(), 0);
        inflater.make_room(1000);
        inflater.rest();
        assert!(inflater.buffer.capacity() >= 1000);
        inflater.release();
        assert!(!inflater.holds_memory());
        assert!(inflater.inflate_owned(b"not gzip", 2000).is_err());
        assert_eq!(inflater.buffer.capacity(), 0);
    }

    /// What comes without streaming.
    pub(in super::super) fn whole(member: &[u8], need: usize) -> Option<Vec<u8>> {
        let mut inflater = Inflater::new();
        inflater.inflate_whole(member, need).then(|| inflater.buffer[..need].to_vec())
    }
}
