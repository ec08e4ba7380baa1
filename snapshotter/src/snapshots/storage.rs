//! What snapshots are kept in: their metadata and their directories, which agree.

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use crate::{
    directories::{self, Directories},
    error::SnapshotError,
    filters::Filters,
    lazy::{Chain, Labels, RemoteLayer},
    metadata::{self, InUse, Metadata},
    overlay::{self, Unsuitable},
};

/// The directory `snapshotter` of a root: `metadata.redb` and `snapshots/`.
#[derive(Debug)]
pub struct Storage {
    root: PathBuf,
    pub(super) metadata: Metadata,
    pub(super) directories: Directories,
}

/// Why snapshots cannot be kept in a directory.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or listed.
    #[error("cannot use {path} for snapshots: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Overlays cannot be mounted from it.
    #[error(transparent)]
    Unsuitable(#[from] Unsuitable),
    /// The metadata cannot be opened.
    #[error(transparent)]
    Metadata(#[from] metadata::OpenError),
}

// === impl Storage ===

impl Storage {
    /// Opens or makes the storage below `root`, an absolute path that this process has locked.
    ///
    /// # Errors
    /// The directory is not fit for it, or holds another layout.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let snapshots = root.join("snapshots");
        let failed = |source| OpenError::Directory { path: snapshots.clone(), source };
        let directories = Directories::open(snapshots.clone()).map_err(failed)?;
        overlay::check(root)?;
        // A crash between making a directory and recording it leaves a number that the metadata does not know.
        let highest = directories.highest_id().map_err(failed)?;
        let metadata = Metadata::open(&root.join("metadata.redb"), highest)?;
        // What is told from now on depends on the names of both, and of the directory that they are in.
        for directory in [Some(root), root.parent()].into_iter().flatten() {
            directories::sync(directory)
                .map_err(|source| OpenError::Directory { path: directory.to_owned(), source })?;
        }
        Ok(Self { root: root.to_owned(), metadata, directories })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Everything that is served lazily and that a snapshot refers to: what a cleanup keeps.
    ///
    /// # Errors
    /// The database failed.
    pub fn in_use(&self) -> Result<InUse, SnapshotError> {
        self.metadata.view()?.in_use()
    }

    /// Every snapshot of a remote layer, with its labels: what a start makes the layers readable from.
    ///
    /// # Errors
    /// The database failed.
    pub fn remote_snapshots(&self) -> Result<Vec<(RemoteLayer, Labels)>, SnapshotError> {
        let mut snapshots = Vec::new();
        self.metadata.view()?.walk(&Filters::default(), |_, record| {
            snapshots.extend(record.remote.map(|layer| (layer, record.labels)));
            ControlFlow::Continue(())
        })?;
        Ok(snapshots)
    }

    /// Every chain of remote layers that is shown as one tree.
    ///
    /// # Errors
    /// The database failed.
    pub fn chains(&self) -> Result<Vec<Chain>, SnapshotError> {
        self.metadata.view()?.chains()
    }

    /// Directories that belong to no snapshot. They are the caller's: nothing will ever use them again.
    ///
    /// # Errors
    /// The database failed, or the directory cannot be listed.
    pub(super) fn orphans(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        self.metadata.frozen(|view| self.directories.orphans(&view.ids()?))
    }
}
