//! The content file: the bytes of all regular files, each contiguous, as far as they are here.
//!
//! Sparse, and as long as the index says from the start. What it holds is served only where the chunk map says so.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
};

/// A layer's content file.
#[derive(Debug)]
pub(crate) struct Content(File);

// === impl Content ===

impl Content {
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }

    /// Fills `buf` from `offset`.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    /// Writes `bytes` at `offset`. Several threads may, each to its own place.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    /// Waits until everything that was written is on disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// Bytes that the file takes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        // POSIX: st_blocks counts units of 512 bytes, whatever the block size.
        self.0.metadata().map_or(0, |metadata| metadata.blocks() * 512)
    }
}
