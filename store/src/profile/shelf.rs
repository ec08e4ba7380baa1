//! Where profiles are kept: below the daemon's root, apart from the layers, which go sooner.
//!
//! `profiles/<layer key>` is what any image was seen to read of the layer, `profiles/<layer key>-<image>` what one image
//! reads of it.

use std::{
    fs::{self, File, FileTimes},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use parking_lot::Mutex;

use super::Profile;
use crate::{LayerKey, PlanId, StoreError};

/// Files that are being written have this at the end of their name.
const UNFINISHED: &str = ".new";

/// Which profile of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Book {
    pub(crate) layer: LayerKey,
    /// What this image reads; none for what any image was seen to read.
    pub(crate) image: Option<PlanId>,
}

/// The profiles on disk; those that were least recently of use go when there are too many.
#[derive(Debug)]
pub(crate) struct Shelf {
    dir: PathBuf,
    /// Bytes that all files may have together.
    limit: u64,
    /// One writer at a time: each replaces what it read.
    writing: Mutex<()>,
}

// === impl Book ===

impl Book {
    pub(crate) fn of_any(layer: LayerKey) -> Self {
        Self { layer, image: None }
    }

    pub(crate) fn of(layer: LayerKey, image: PlanId) -> Self {
        Self { layer, image: Some(image) }
    }
}

// === impl Shelf ===

impl Shelf {
    /// Keeps profiles in the directory `dir`, which it makes.
    pub(crate) fn open(dir: PathBuf, limit: u64) -> Result<Self, StoreError> {
        fs::create_dir_all(&dir).map_err(StoreError::new("create", &dir))?;
        Ok(Self { dir, limit, writing: Mutex::new(()) })
    }

    /// Whether there is a file.
    pub(crate) fn has(&self, book: Book) -> bool {
        self.path(book).exists()
    }

    /// A profile, if there is one that can be used.
    pub(crate) fn get(&self, book: Book) -> Option<Profile> {
        let path = self.path(book);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read the profile of a layer");
                return None;
            }
        };
        match Profile::parse(&bytes) {
            Ok(profile) if profile.key() == book.layer => Some(profile),
            Ok(_) => {
                tracing::warn!(path = %path.display(), "a profile is of another layer, it is ignored");
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a profile is damaged, it is ignored");
                None
            }
        }
    }

    /// The profile is of use again: it goes last.
    pub(crate) fn touch(&self, book: Book) {
        let times = FileTimes::new().set_modified(SystemTime::now());
        // Nothing depends on it but which profile is thrown away first.
        let _ = File::options().write(true).open(self.path(book)).and_then(|file| file.set_times(times));
    }

    /// Replaces a profile by what `change` makes of it, unless that is nothing new.
    pub(crate) fn change(&self, book: Book, change: impl FnOnce(&mut Profile) -> bool) {
        let _writing = self.writing.lock();
        let mut profile = self.get(book).unwrap_or_else(|| Profile::new(book.layer));
        if !change(&mut profile) {
            return;
        }
        if let Err(error) = self.put(&self.path(book), &profile.encode()) {
            tracing::warn!(layer = %book.layer, %error, "cannot keep the profile of a layer");
        }
        self.make_room(&self.path(book));
    }

    /// Atomic, and not synced: after a power cut the profile is the old one, or a damaged one that is ignored.
    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = path.with_extension(UNFINISHED.trim_start_matches('.'));
        File::create(&new)?.write_all(bytes)?;
        fs::rename(&new, path)
    }

    fn make_room(&self, but: &Path) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let files = entries.flatten().filter_map(|entry| {
            let about = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((about.modified().ok()?, about.len(), entry.path()))
        });
        let mut files: Vec<_> = files.collect();
        let mut sum: u64 = files.iter().map(|(_, len, _)| len).sum();
        files.sort_unstable();
        for (_, len, path) in files {
            if sum <= self.limit {
                return;
            }
            if path != but && fs::remove_file(&path).is_ok() {
                sum -= len;
            }
        }
    }

    fn path(&self, book: Book) -> PathBuf {
        self.dir.join(match book.image {
            Some(PlanId(image)) => format!("{}-{image:016x}", book.layer),
            None => book.layer.to_string(),
        })
    }
}

#[cfg(test)]
mod tests;
