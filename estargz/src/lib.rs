//! The eStargz format: footers, TOC, index, chunk decoding and verification, writer.
//!
//! No sockets, no files, no threads: bytes come in, bytes go out, and every length, offset, count and
//! name in them is bounded before use.

#![forbid(unsafe_code)]

pub mod decode;
mod digest;
pub mod footer;
pub mod index;
pub mod limits;
pub mod toc;
pub mod write;

pub use digest::{Digest, InvalidDigest, Sha256};
pub use index::{Chunk, ChunkId, Entry, FileLayout, Index, IndexError, Kind, Node, NodeId};
