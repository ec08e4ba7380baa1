//! How much disk layers take, and which of them should go when it is too much.
//!
//! The figures are those of the file system, looked up each time: nothing that could drift from the truth is kept.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::SystemTime,
};

use nix::sys::statvfs::statvfs;

use crate::{LayerKey, files};

/// `st_blocks` counts these, whatever the file system's blocks are (stat(2)).
const BLOCK: u64 = 512;

/// A layer's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDisk {
    /// Whose they are.
    pub key: LayerKey,
    /// Blocks that they take, in bytes.
    pub bytes: u64,
    /// When something was last read of the layer, to a few seconds.
    pub used: SystemTime,
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileSystem {
    /// Its size in bytes.
    pub total: u64,
    /// Bytes that may still be written.
    pub free: u64,
}

/// Whether what is fetched is kept.
#[derive(Debug)]
pub(crate) struct Keeping {
    on: AtomicBool,
    /// Chunks that were served and not kept.
    uncached: AtomicU64,
}

// === impl Keeping ===

impl Keeping {
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Acquire)
    }

    /// Says whether that is a change.
    pub(crate) fn set(&self, on: bool) -> bool {
        self.on.swap(on, Release) != on
    }

    pub(crate) fn count_uncached(&self) {
        self.uncached.fetch_add(1, Relaxed);
    }

    pub(crate) fn uncached(&self) -> u64 {
        self.uncached.load(Relaxed)
    }
}

impl Default for Keeping {
    fn default() -> Self {
        Self { on: AtomicBool::new(true), uncached: AtomicU64::new(0) }
    }
}

/// The layers in the directory `layers`.
pub(crate) fn on_disk(layers: &Path) -> Vec<OnDisk> {
    let about = |key: LayerKey| {
        let dir = layers.join(key.to_string());
        let used = fs::metadata(&dir).and_then(|dir| dir.modified()).ok()?;
        Some(OnDisk { key, bytes: bytes(&dir), used })
    };
    files::keys(layers).into_iter().filter_map(about).collect()
}

/// Bytes that the directory of a layer takes with all that is in it; none if there is no such directory.
pub(crate) fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let of = |metadata: fs::Metadata| metadata.blocks() * BLOCK;
    let files = entries.filter_map(|entry| entry.metadata().ok()).map(of);
    files.sum::<u64>() + fs::metadata(dir).map_or(0, of)
}

/// Notes that a layer was used.
pub(crate) fn touch(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.set_modified(SystemTime::now())
}

/// The file system of `dir`.
pub(crate) fn file_system(dir: &Path) -> io::Result<FileSystem> {
    let stat = statvfs(dir)?;
    let unit = stat.fragment_size();
    Ok(FileSystem { total: stat.blocks() * unit, free: stat.blocks_available() * unit })
}

/// Which of `layers` should go so that `excess` bytes come free: the least recently used first, and none of `needed`.
pub fn choose(layers: &[OnDisk], needed: &BTreeSet<LayerKey>, excess: u64) -> Vec<LayerKey> {
    let mut free: Vec<_> = layers.iter().filter(|layer| !needed.contains(&layer.key)).collect();
    free.sort_by_key(|layer| (layer.used, layer.key));
    let mut left = excess;
    let goes = |layer: &&&OnDisk| {
        let goes = left > 0;
        left = left.saturating_sub(layer.bytes);
        goes
    };
    free.iter().take_while(goes).map(|layer| layer.key).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use estargz::Digest;
    use proptest::prelude::*;

    use super::*;

    fn layer(number: u8, bytes: u64, used: u64) -> OnDisk {
        let key = LayerKey { blob: Digest::of(&[number]), toc: Digest::of(b"") };
        OnDisk { key, bytes, used: SystemTime::UNIX_EPOCH + Duration::from_secs(used) }
    }

    #[test]
    fn files_are_measured_by_their_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let empty = bytes(dir.path());
        fs::write(dir.path().join("toc"), [1; 5000]).unwrap();
        fs::File::create(dir.path().join("content")).unwrap().set_len(1 << 30).unwrap();
        assert!((5000..100_000).contains(&(bytes(dir.path()) - empty)));
        let space = file_system(dir.path()).unwrap();
        assert!(space.total > space.free && space.free > 0);
        let before = fs::metadata(dir.path()).unwrap().modified().unwrap();
        touch(dir.path()).unwrap();
        assert!(fs::metadata(dir.path()).unwrap().modified().unwrap() >= before);
        assert_eq!(bytes(&dir.path().join("none")), 0);
    }

    proptest! {
        #[test]
        fn goes_what_was_least_recently_used_and_no_more(
            layers in prop::collection::vec((0u64..50, 0u64..10), 0..20),
            needed in prop::collection::btree_set(0usize..20, 0..10),
            excess in 0u64..400,
        ) {
            let layers: Vec<_> =
                layers.iter().enumerate().map(|(i, (bytes, used))| layer(i as u8, *bytes, *used)).collect();
            let needed: BTreeSet<_> = needed.iter().filter_map(|i| layers.get(*i)).map(|l| l.key).collect();
            let gone = choose(&layers, &needed, excess);
            let (went, stayed): (Vec<OnDisk>, Vec<OnDisk>) = layers.iter().copied().partition(|layer| gone.contains(&layer.key));
            prop_assert_eq!(went.len(), gone.len());
            prop_assert!(went.iter().all(|layer| !needed.contains(&layer.key)));
            let freed: u64 = went.iter().map(|layer| layer.bytes).sum();
            let could_go: Vec<_> = stayed.iter().filter(|layer| !needed.contains(&layer.key)).collect();
            // Enough, or all there is.
            prop_assert!(freed >= excess || could_go.is_empty());
            // Nothing too much: without the last one it would not do.
            if let Some(last) = went.iter().max_by_key(|layer| (layer.used, layer.key)) {
                prop_assert!(freed - last.bytes < excess);
                prop_assert!(could_go.iter().all(|layer| (layer.used, layer.key) > (last.used, last.key)));
            }
        }
    }
}
