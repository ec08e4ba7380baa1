//! The eStargz format: footers, TOC, index, chunk decoding and verification, writer.
//!
//! No sockets, no files, no threads: bytes come in, bytes go out, and every length, offset, count and
//! name in them is bounded before use.

#![forbid(unsafe_code)]

mod digest;

pub use digest::{Digest, InvalidDigest, Sha256};
