//! What a directory tree takes on disk, counted as containerd counts it (`continuity/fs`, `DiskUsage`): allocated blocks
//! and inodes, each inode once however many names it has, the top directory included.

use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::lazy::Usage;

/// `st_blocks` counts these, whatever the file system's blocks are (stat(2)).
const BLOCK: u64 = 512;

#[derive(Default)]
struct Count {
    usage: Usage,
    /// Inodes with several names that were counted.
    seen: HashSet<(u64, u64)>,
}

/// Counts `root` and everything below. What vanishes meanwhile (a running container writes there) is not counted.
///
/// # Errors
/// A directory cannot be read.
pub fn disk_usage(root: &Path) -> io::Result<Usage> {
    let mut count = Count::default();
    count.add(&fs::symlink_metadata(root)?);
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        let Some(entries) = unless_gone(fs::read_dir(&directory))? else { continue };
        for entry in entries {
            let entry = entry?;
            // Of the entry itself, not of what a symbolic link names.
            let Some(stat) = unless_gone(entry.metadata())? else { continue };
            count.add(&stat);
            if stat.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(count.usage)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

// === impl Count ===

impl Count {
    fn add(&mut self, stat: &Metadata) {
        let several = stat.nlink() > 1 && !stat.is_dir();
        if several && !self.seen.insert((stat.dev(), stat.ino())) {
            return;
        }
        self.usage.size += stat.blocks() * BLOCK;
        self.usage.inodes += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once_and_holes_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let path = |name| root.path().join(name);
        let empty = disk_usage(root.path()).unwrap();
        assert_eq!(empty.inodes, 1);
        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/a"), [1; 10_000]).unwrap();
        fs::hard_link(path("d/a"), path("b")).unwrap();
        fs::File::create(path("sparse")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("/", path("link")).unwrap();
        let usage = disk_usage(root.path()).unwrap();
        assert_eq!(usage.inodes, 5);
        assert!(usage.size >= 10_000 && usage.size < 1 << 20, "{usage:?}");
        assert!(disk_usage(&path("missing")).is_err());
    }
}
