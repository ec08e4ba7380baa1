//! A directory that leaves nothing behind: what is mounted below it is unmounted before it is removed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

/// A directory below the system's temporary directory, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
}

// === impl Scratch ===

impl Scratch {
    /// A new, empty directory whose name begins with `prefix`.
    ///
    /// # Errors
    /// The temporary directory cannot be written.
    pub fn new(prefix: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(prefix).tempdir().context("make a scratch directory")?;
        Ok(Self { dir: dir.keep() })
    }

    /// Takes the directory `dir` over, to be removed in the same way.
    pub fn adopt(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Unmounts what is mounted below, innermost first, and removes the directory.
    ///
    /// # Errors
    /// Something below is still mounted or cannot be removed.
    pub fn clear(&self) -> Result<()> {
        for mount in mounts_below(&self.dir) {
            // Detached: a mount in use goes when its last user does, and a dead FUSE mount cannot be waited for.
            umount2(&mount, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", mount.display()))?;
        }
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// The mount points below `dir`, innermost first, from `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`):
/// a dead FUSE mount must be found without touching it.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut mounts: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|escaped| PathBuf::from(escaped.replace("\\040", " ").replace("\\011", "\t")))
        .filter(|mount| mount.starts_with(dir))
        .collect();
    mounts.sort();
    mounts.reverse();
    mounts
}
