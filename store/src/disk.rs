//! What a store changes on disk, one call for each change: tests have a change fail, or the machine end between two.
//!
//! Everything that the files of layers depend on goes through here. Profiles and times of use do not: what is lost of
//! them is lost.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use nix::fcntl::{FallocateFlags, fallocate};

/// Changes the files of a store.
///
/// A [`Store`](crate::Store) uses [`RealDisk`] unless told otherwise. Names last once the directory that they are in was
/// synced, bytes and lengths once their file was.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory.
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    /// Opens a file for reading and writing, and makes it if it is not there.
    fn open(&self, path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(false).open(path)
    }

    /// Cuts a file, or lengthens it with zeros.
    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    /// Writes all of `bytes` at `offset`.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Gives back what a part of a file takes on disk: it reads as zeros.
    fn punch(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(file, mode, offset, len)?)
    }

    /// Waits until everything that was written to `file` is on disk, and its length.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Gives a file or a directory another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Waits until the names in a directory are on disk.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    /// Deletes a directory with all that is in it.
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }
}

/// Does what the system does.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}
