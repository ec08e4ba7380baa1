//! From a TOC to an index.
//!
//! [`build_index`] streams: compressed bytes, tar entry and JSON pass by in small pieces, entries are put into the
//! tree one at a time, and every claim is checked against [`crate::limits`] before memory is spent on it. What comes out
//! depends on the TOC alone.
//!
//! Whether the digest of the TOC is the expected one is for the caller to compare.

mod assemble;
mod content;
mod entry;
mod error;
mod links;
mod names;
mod path;
mod section;
mod strings;
mod time;
mod tree;
mod xattrs;

use std::io::{BufReader, Read};

pub use self::error::{Problem, Reason, TocError};
use self::{
    assemble::{Blob, assemble},
    section::Allowance,
    tree::Tree,
};
use crate::{Digest, limits};

/// Bytes of JSON that the parser gets at a time.
const BUFFER_LEN: usize = 64 << 10;

/// What a TOC was made into.
#[derive(Debug)]
pub struct Built {
    /// The bytes of the index file, for [`crate::Index::parse`].
    pub index: Vec<u8>,
    /// SHA-256 of the TOC's JSON: what the layer's annotation must say.
    pub toc_digest: Digest,
}

/// Builds the index from `section`, the compressed TOC: the bytes of the blob from `toc_offset` to the
/// footer, a gzip member that holds a tar entry `stargz.index.json`.
pub fn build_index(section: impl Read, toc_offset: u64, blob_size: u64) -> Result<Built, TocError> {
    if toc_offset >= blob_size || blob_size > limits::BLOB_LEN {
        return Err(TocError::Place { toc_offset, blob_size });
    }
    let allowance = Allowance::new();
    let mut payload = section::open(section, &allowance)?;
    let mut tree = Tree::new(toc_offset);
    let json = BufReader::with_capacity(BUFFER_LEN, &mut payload);
    entry::read_all(json, &allowance, &mut |entry| tree.add(entry))?;
    tree.finish()?;
    let toc_digest = payload.finish();
    let index = assemble(tree, Blob { size: blob_size, toc_offset, toc_digest })?;
    Ok(Built { index, toc_digest })
}

#[cfg(test)]
mod tests;
