//! Inflating in pieces, for chunks that are too long to be held whole.

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};

use super::DecodeError;

/// Bytes of uncompressed data that are given on at a time.
const PIECE_LEN: usize = 64 << 10;
/// Largest window of a gzip member (RFC 1951: 32 KiB).
const WINDOW_BITS: u8 = 15;

/// Takes compressed bytes in pieces of any length and gives on the first `need` uncompressed ones.
///
/// Content may go on in the next gzip member, as the format allows: members are read one after another.
pub struct MemberStream {
    state: Decompress,
    piece: Box<[u8]>,
    need: u64,
    inflated: u64,
    /// The last gzip member was read to its end; more input starts another one.
    at_end: bool,
}

impl MemberStream {
    /// A stream that stops after `need` uncompressed bytes.
    pub fn new(need: u64) -> Self {
        let state = Decompress::new_gzip(WINDOW_BITS);
        Self { state, piece: vec![0; PIECE_LEN].into_boxed_slice(), need, inflated: 0, at_end: false }
    }

    /// Inflates the next compressed bytes. `sink` gets each piece with its offset in the uncompressed member.
    /// What comes after the needed bytes is ignored.
    pub fn push(
        &mut self,
        mut compressed: &[u8],
        sink: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), DecodeError> {
        while !self.is_done() {
            if self.at_end {
                if compressed.is_empty() {
                    return Ok(());
                }
                self.state = Decompress::new_gzip(WINDOW_BITS);
                self.at_end = false;
            }
            let room = usize::try_from(self.need - self.inflated).unwrap_or(usize::MAX).min(PIECE_LEN);
            let room = self.piece.get_mut(..room).unwrap_or_default();
            let (read, wrote) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(compressed, room, FlushDecompress::None);
            let (read, wrote) = (self.state.total_in() - read, self.state.total_out() - wrote);
            compressed = compressed.get(read as usize..).unwrap_or_default();

            // An error may come with bytes from before it. What comes after the needed ones does not
            // matter, not even if it is damaged.
            if let Some(piece) = self.piece.get(..wrote as usize).filter(|piece| !piece.is_empty()) {
                sink(self.inflated, piece);
                self.inflated += wrote;
            }
            self.at_end = match status {
                Ok(status) => status == Status::StreamEnd,
                Err(_) if self.is_done() => return Ok(()),
                Err(error) => {
                    return Err(DecodeError::Damaged { inflated: self.inflated, what: error.to_string() });
                }
            };
            if read == 0 && wrote == 0 && !self.at_end {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Uncompressed bytes that came out so far.
    pub fn inflated(&self) -> u64 {
        self.inflated
    }

    /// Whether all the needed bytes came out.
    pub fn is_done(&self) -> bool {
        self.inflated >= self.need
    }

    /// To be called after the last piece: tells whether all the needed bytes came out.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.is_done() {
            Ok(())
        } else {
            Err(DecodeError::Short { inflated: self.inflated, needed: self.need })
        }
    }
}

impl fmt::Debug for MemberStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberStream")
            .field("inflated", &self.inflated)
            .field("need", &self.need)
            .finish_non_exhaustive()
    }
}
