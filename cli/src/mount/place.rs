//! The directory with everything that a mount needs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use snapshotter::{lock::RootLock, overlay};
use tempfile::TempDir;

/// A directory of this process alone, deleted with it or kept.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    _lock: RootLock,
    _temporary: Option<TempDir>,
}

// === impl Place ===

impl Place {
    /// Takes `root`, or a new temporary directory.
    pub(super) fn take(root: Option<&Path>) -> Result<Self> {
        let temporary = match root {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new().prefix("starling-").tempdir().context("cannot make a directory")?,
            ),
        };
        let path = root.or(temporary.as_ref().map(TempDir::path)).unwrap_or(Path::new("."));
        // Taking it makes it.
        let lock = RootLock::take(path)?;
        let path = path.canonicalize().with_context(|| format!("cannot use {}", path.display()))?;
        overlay::check(&path)?;
        Ok(Self { path, _lock: lock, _temporary: temporary })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the FUSE connection goes.
    pub(super) fn connection(&self) -> PathBuf {
        self.path.join("mount/l")
    }

    /// Where local copies of layers go.
    pub(super) fn converted(&self) -> PathBuf {
        self.path.join("converted")
    }

    /// A directory without anything in it, below all layers.
    pub(super) fn empty(&self) -> Result<PathBuf> {
        let path = self.path.join("empty");
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}
