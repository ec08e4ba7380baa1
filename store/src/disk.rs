//! What an open layer does with its content file. Tests have it fail.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Writes and syncs the content files of a store.
///
/// A [`Store`](crate::Store) uses [`RealDisk`] unless told otherwise.
pub trait Disk: Send + Sync + 'static {
    /// Writes all of `bytes` at `offset`.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Waits until everything that was written to `file` is on disk.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Does what the system does.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}
