//! The content file: the bytes of all regular files, each contiguous, as far as they are here.
//!
//! Sparse, and as long as the index says from the start. What it holds is served only where the chunk map says so.

use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::Disk;

/// A layer's content file.
pub(crate) struct Content {
    file: File,
    disk: Arc<dyn Disk>,
}

// === impl Content ===

impl Content {
    pub(crate) fn new(file: File, disk: Arc<dyn Disk>) -> Self {
        Self { file, disk }
    }

    /// Fills `buf` from `offset`.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Writes `bytes` at `offset`. Several threads may, each to its own place.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.write(&self.file, bytes, offset)
    }

    /// Gives back what a part takes on disk.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.punch(&self.file, offset, len)
    }

    /// Waits until everything that was written is on disk. An error is told once: what was written before is lost then,
    /// though the next call works.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.disk.sync(&self.file)
    }

    /// Lets the kernel forget the file's pages. Those that were not synced stay.
    pub(crate) fn drop_pages(&self) -> io::Result<()> {
        // A length of 0 is up to the end (posix_fadvise(2)).
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(io::Error::from)
    }

    /// Lets the kernel forget the pages of a part, so that the next read is one of the disk. Those that were not written
    /// yet stay.
    pub(crate) fn forget_pages(&self, offset: u64, len: u64) {
        let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else { return };
        // Pages that stay only hide what the disk has.
        let _ = posix_fadvise(&self.file, offset, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }

    /// Bytes that the file takes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        // POSIX: st_blocks counts units of 512 bytes, whatever the block size.
        self.file.metadata().map_or(0, |metadata| metadata.blocks() * 512)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("file", &self.file).finish_non_exhaustive()
    }
}
