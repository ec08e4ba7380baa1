//! Disk that a directory takes.

use std::{collections::HashSet, os::unix::fs::MetadataExt, path::Path};

use walkdir::WalkDir;

/// Bytes allocated below `dir`, holes not counted and hard links once, on the file system of `dir` alone: what
/// is mounted below it takes its disk elsewhere.
pub(crate) fn allocated(dir: &Path) -> u64 {
    let mut seen = HashSet::new();
    WalkDir::new(dir)
        .same_file_system(true)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|metadata| seen.insert((metadata.dev(), metadata.ino())))
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn holes_do_not_count_and_hard_links_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let empty = allocated(dir.path());
        fs::write(dir.path().join("file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(dir.path().join("file"), dir.path().join("link")).unwrap();
        File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        let taken = allocated(dir.path()) - empty;
        assert!((1 << 20..2 << 20).contains(&taken), "{taken}");
    }
}
