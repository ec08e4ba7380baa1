//! A profile, and the file that it is kept in.
//!
//! The file is little-endian: magic, version, flags, both digests of the layer's key, the number of accesses, the
//! accesses, and SHA-256 of all that. A file that is damaged is worth nothing and costs nothing: it is ignored.

use std::collections::HashSet;

use estargz::{ChunkId, Digest};

use crate::LayerKey;

const MAGIC: &[u8; 8] = b"starlprf";
const VERSION: u32 = 1;
/// Magic, version, flags, both digests, number of accesses.
const HEADER_LEN: usize = 84;
const ACCESS_LEN: usize = 8;
const CHECKSUM_LEN: usize = 32;
/// The recording went on to its end.
const FINISHED: u32 = 1;
/// Nothing was in the page cache: whatever the start needed was seen.
const WHOLE: u32 = 2;

/// The order in which the chunks of a layer were read for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    key: LayerKey,
    finished: bool,
    whole: bool,
    accesses: Vec<Access>,
}

/// The first access to a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The chunk.
    pub chunk: ChunkId,
    /// Milliseconds after the start that it was part of.
    pub at: u32,
}

/// Why the bytes of a file are not a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProfile {
    /// It is something else, or of another version.
    #[error("it does not begin as a profile of version {VERSION} does")]
    Unknown,
    /// It is shorter or longer than it says.
    #[error("it has {actual} bytes instead of {expected}")]
    Length {
        /// What follows from its number of accesses.
        expected: u64,
        /// What it has.
        actual: u64,
    },
    /// Its bytes are not those that were written.
    #[error("its bytes do not match their checksum")]
    Checksum,
    /// It lists more than any recording does.
    #[error("it lists {0} accesses, more than {most}", most = Profile::MOST_ACCESSES)]
    TooLong(u64),
    /// A chunk is listed twice, or an access is out of its order.
    #[error("its accesses are not in order")]
    Order,
}

// === impl Profile ===

impl Profile {
    /// Accesses that one profile has at most: 512 KiB. A start that touches more chunks of one layer than this reads
    /// nearly all of it anyway.
    pub const MOST_ACCESSES: usize = 1 << 16;

    /// A profile without accesses.
    pub fn new(key: LayerKey) -> Self {
        Self { key, finished: false, whole: false, accesses: Vec::new() }
    }

    /// The layer that it is of.
    pub fn key(&self) -> LayerKey {
        self.key
    }

    /// The accesses, the first one first.
    pub fn accesses(&self) -> &[Access] {
        &self.accesses
    }

    /// Whether a recording went on to its end.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether it holds all that a start needs, and not only what an earlier start of another image had left out of the
    /// page cache.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Notes that nothing was in the page cache. Says whether that is news.
    pub(crate) fn make_whole(&mut self) -> bool {
        !std::mem::replace(&mut self.whole, true)
    }

    /// Adds the accesses of a recording. What is listed stays, in its order; a chunk that is new takes the place that
    /// its time gives it. Says whether anything is new.
    pub fn add(&mut self, recorded: &[Access]) -> bool {
        let mut known: HashSet<_> = self.accesses.iter().map(|access| access.chunk).collect();
        let room = Self::MOST_ACCESSES.saturating_sub(self.accesses.len());
        let new: Vec<_> =
            recorded.iter().filter(|access| known.insert(access.chunk)).copied().take(room).collect();
        self.accesses.extend_from_slice(&new);
        self.accesses.sort_by_key(|access| access.at);
        !new.is_empty()
    }

    /// Reads a profile's file.
    ///
    /// # Errors
    /// The bytes are not what [`Self::encode`] gives.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidProfile> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(InvalidProfile::Unknown)?;
        let (magic, header) = header.split_first_chunk::<8>().ok_or(InvalidProfile::Unknown)?;
        let (version, header) = header.split_first_chunk::<4>().ok_or(InvalidProfile::Unknown)?;
        if magic != MAGIC || u32::from_le_bytes(*version) != VERSION {
            return Err(InvalidProfile::Unknown);
        }
        let (flags, header) = header.split_first_chunk::<4>().ok_or(InvalidProfile::Unknown)?;
        let (blob, header) = header.split_first_chunk::<32>().ok_or(InvalidProfile::Unknown)?;
        let (toc, count) = header.split_first_chunk::<32>().ok_or(InvalidProfile::Unknown)?;
        let count = count.first_chunk::<4>().map_or(0, |count| u32::from_le_bytes(*count));
        if count as usize > Self::MOST_ACCESSES {
            return Err(InvalidProfile::TooLong(count.into()));
        }
        let expected = (HEADER_LEN + count as usize * ACCESS_LEN + CHECKSUM_LEN) as u64;
        let length = InvalidProfile::Length { expected, actual: bytes.len() as u64 };
        if bytes.len() as u64 != expected {
            return Err(length);
        }
        let (accesses, checksum) = rest.split_last_chunk::<CHECKSUM_LEN>().ok_or(length)?;
        let body = bytes.get(..bytes.len() - CHECKSUM_LEN).unwrap_or_default();
        if Digest::of(body).as_bytes() != checksum {
            return Err(InvalidProfile::Checksum);
        }
        let accesses: Vec<_> = accesses.as_chunks::<ACCESS_LEN>().0.iter().map(Access::parse).collect();
        let mut seen = HashSet::with_capacity(accesses.len());
        if !accesses.is_sorted_by_key(|access| access.at)
            || !accesses.iter().all(|access| seen.insert(access.chunk))
        {
            return Err(InvalidProfile::Order);
        }
        Ok(Self {
            key: LayerKey { blob: Digest::from_bytes(*blob), toc: Digest::from_bytes(*toc) },
            finished: u32::from_le_bytes(*flags) & FINISHED != 0,
            whole: u32::from_le_bytes(*flags) & WHOLE != 0,
            accesses,
        })
    }

    /// The bytes of its file.
    pub fn encode(&self) -> Vec<u8> {
        let accesses = self.accesses.get(..Self::MOST_ACCESSES).unwrap_or(&self.accesses);
        let mut bytes = Vec::with_capacity(HEADER_LEN + accesses.len() * ACCESS_LEN + CHECKSUM_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let flag = |is: bool, flag: u32| if is { flag } else { 0 };
        let flags = flag(self.finished, FINISHED) | flag(self.whole, WHOLE);
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(self.key.blob.as_bytes());
        bytes.extend_from_slice(self.key.toc.as_bytes());
        bytes.extend_from_slice(&(accesses.len() as u32).to_le_bytes());
        for access in accesses {
            bytes.extend_from_slice(&access.chunk.0.to_le_bytes());
            bytes.extend_from_slice(&access.at.to_le_bytes());
        }
        let checksum = Digest::of(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }
}

// === impl Access ===

impl Access {
    fn parse(bytes: &[u8; ACCESS_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h] = *bytes;
        Self { chunk: ChunkId(u32::from_le_bytes([a, b, c, d])), at: u32::from_le_bytes([e, f, g, h]) }
    }
}

#[cfg(test)]
mod tests;
