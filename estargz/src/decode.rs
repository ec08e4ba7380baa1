//! Chunks out of compressed members, and their verification.
//!
//! [`Inflater`] inflates what fits in memory, in one go; [`MemberStream`] takes members of any length in pieces.
//! Both give at most as many bytes as were asked for, whatever the input claims: a bomb costs no more than
//! an honest member. Neither verifies: that is [`verify`]'s part, or the caller's with [`Sha256`](crate::Sha256).

mod inflater;
mod stream;

pub use self::{inflater::Inflater, stream::MemberStream};
use crate::Digest;

/// Why a member could not be inflated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The compressed bytes are not what they should be.
    #[error("compressed data is damaged after {inflated} bytes: {what}")]
    Damaged {
        /// Uncompressed bytes that came out before.
        inflated: u64,
        /// What is wrong.
        what: String,
    },
    /// The compressed bytes end too early.
    #[error("compressed data ends after {inflated} of {needed} bytes")]
    Short {
        /// Uncompressed bytes that came out.
        inflated: u64,
        /// Uncompressed bytes that were asked for.
        needed: u64,
    },
    /// More was asked for than is inflated in one go.
    #[error("{needed} bytes are too many to inflate at once, the limit is {}", crate::limits::INFLATE_LEN)]
    TooLong {
        /// Uncompressed bytes that were asked for.
        needed: u64,
    },
}

/// Bytes are not the ones that the TOC vouches for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("content has digest {actual}, expected {expected}")]
pub struct DigestMismatch {
    /// Digest in the TOC.
    pub expected: Digest,
    /// Digest of the bytes.
    pub actual: Digest,
}

/// Checks that `data` has the digest `expected`.
pub fn verify(data: &[u8], expected: &Digest) -> Result<(), DigestMismatch> {
    let actual = Digest::of(data);
    if actual == *expected { Ok(()) } else { Err(DigestMismatch { expected: *expected, actual }) }
}

#[cfg(test)]
mod tests;
