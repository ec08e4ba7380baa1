//! What `benches/choice` measures and nobody outside the crate can reach otherwise. Not part of the API.

use std::{fs::File, io, sync::Arc};

use estargz::{Chunk, ChunkId, Digest, IndexError, NodeId};

use crate::{
    RealDisk,
    fetch::{
        reach::{Bounds, Pattern, Reach},
        window::{Chunks, Window},
    },
    files::chunk_map::{Batch, ChunkMap},
};

/// A layer of files of 20 KiB each, every third of which is here.
#[derive(Debug)]
pub struct SmallFiles {
    count: u32,
    digest: Digest,
}

impl SmallFiles {
    /// So many files.
    pub fn new(count: u32) -> Self {
        Self { count, digest: Digest::of(b"") }
    }

    /// Cuts a window of `bytes` around the chunk `at`, and says how many members it has.
    ///
    /// # Errors
    /// There is no such chunk.
    pub fn cut(&self, at: u32, bytes: u64) -> Result<usize, IndexError> {
        let reach = Reach { backward: bytes / 8, forward: bytes - bytes / 8, steps: 0 };
        Window::cut(self, ChunkId(at), reach).map(|members| members.len())
    }
}

impl Chunks for SmallFiles {
    fn count(&self) -> u32 {
        self.count
    }

    fn chunk(&self, id: ChunkId) -> Result<Chunk, IndexError> {
        let at = u64::from(id.0);
        Ok(Chunk {
            node: NodeId::ROOT,
            member_start: at * 7000,
            member_end: at * 7000 + 6900,
            inner_offset: 0,
            len: 20 << 10,
            content_offset: at * (20 << 10),
            digest: self.digest,
        })
    }

    fn is_free(&self, id: ChunkId) -> bool {
        !id.0.is_multiple_of(3)
    }
}

/// What the last misses were like.
#[derive(Debug, Default)]
pub struct Misses(Pattern);

impl Misses {
    /// The size of the window for a miss at `at`.
    pub fn reach(&mut self, at: u64) -> u64 {
        self.0.reach(at, 1 << 20, Bounds { min: 128 << 10, max: 8 << 20 }, |_| false).forward
    }
}

/// A chunk map with its file.
#[derive(Debug)]
pub struct Map(ChunkMap);

impl Map {
    /// Makes the file of a layer with `count` chunks, none of which is here.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(file: &File, count: u32) -> io::Result<()> {
        ChunkMap::create(&RealDisk, file, count)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(file: File, count: u32) -> io::Result<Self> {
        ChunkMap::open(Arc::new(RealDisk), file, count).map(Self)
    }

    /// Whether the chunk is here.
    pub fn has(&self, chunk: u32) -> bool {
        self.0.has(ChunkId(chunk))
    }

    /// The chunk is here.
    pub fn add(&self, chunk: u32) -> bool {
        self.0.add(ChunkId(chunk), 4096)
    }

    /// The first chunk that is not here.
    pub fn first_missing(&self) -> Option<u32> {
        self.0.first_missing(0..u32::MAX)
    }

    /// How many chunks are here.
    pub fn present(&self) -> u64 {
        self.0.present()
    }

    /// Records the first `count` chunks in the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(&self, count: u32) -> io::Result<()> {
        self.0.record(&Batch { chunks: (0..count).collect(), bytes: 1 })
    }
}
