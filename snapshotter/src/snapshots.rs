//! The state machine: what each call of containerd's snapshots API means.
//!
//! Ordinary snapshots behave as those of containerd's overlay snapshotter. A Prepare that names a target may instead end
//! in a committed snapshot whose files a [`LazyLayers`] serves (`remote`). All calls but `prepare` and `cleanup` block,
//! and none of those touches the network.

mod chains;
mod cleanup;
mod remote;
mod storage;
#[cfg(test)]
mod tests;

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use parking_lot::Mutex;
use proto::types::Mount;

use crate::{
    error::SnapshotError,
    filters::Filters,
    idmap,
    lazy::{Labels, LazyLayers, Owner, Usage},
    metadata::{Below, Kind, Record},
    mounts::{Place, mounts},
    name::Name,
    overlay::OverlayOptions,
    usage::disk_usage,
};
pub(crate) use cleanup::blocking;
pub use remote::{REMOTE_LABEL, REMOTE_LABEL_VALUE, TARGET_LABEL};
pub use storage::{OpenError, Storage};

/// What can be set about snapshots.
#[derive(Debug, Clone)]
pub struct SnapshotsConfig {
    /// How long a Prepare may take to find out whether a layer can be lazy, before it falls back.
    pub prepare_timeout: Duration,
}

/// Snapshots, whatever asks for them.
pub struct Snapshots {
    storage: Storage,
    overlay: OverlayOptions,
    lazy: Arc<dyn LazyLayers>,
    config: SnapshotsConfig,
    /// Remote Prepares share it, from before the layer is opened until its snapshot is recorded; deleting layers takes
    /// it alone.
    layers: Arc<tokio::sync::RwLock<()>>,
    /// Held while directories are deleted: of two that delete one tree, the first to end would end too early.
    deleting: Mutex<()>,
    /// Layers were to be deleted while a remote Prepare was at work.
    layers_cleanup_due: AtomicBool,
}

/// What a new snapshot stands on.
struct Ground {
    chain: Vec<Below>,
    lower: Vec<PathBuf>,
    owner: Option<Owner>,
}

// === impl SnapshotsConfig ===

impl Default for SnapshotsConfig {
    fn default() -> Self {
        // Longer than a slow registry needs for one layer, shorter than the patience of a kubelet (two minutes).
        Self { prepare_timeout: Duration::from_secs(30) }
    }
}

// === impl Snapshots ===

impl Snapshots {
    /// Snapshots kept in `storage`, whose remote layers `lazy` serves.
    pub fn new(storage: Storage, lazy: Arc<dyn LazyLayers>, config: SnapshotsConfig) -> Arc<Self> {
        Arc::new(Self {
            overlay: OverlayOptions::detect(storage.root()),
            storage,
            lazy,
            config,
            layers: Arc::default(),
            deleting: Mutex::new(()),
            layers_cleanup_due: AtomicBool::new(false),
        })
    }

    /// Creates an active snapshot or a view, in a directory of its own.
    ///
    /// # Errors
    /// The parent is missing or not committed, the key is taken, a layer below is unavailable, or the disk failed.
    pub fn create(
        &self,
        kind: Kind,
        key: &Name,
        parent: Option<&Name>,
        labels: &Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        let mapped = idmap::root_of(key, labels)?;
        let directories = &self.storage.directories;
        loop {
            let ground = self.ground(key, parent)?;
            let created = self.storage.metadata.change(|change| {
                // A parent of the same name may have taken the old one's place since.
                if change.view().chain(parent)? != ground.chain {
                    return Ok(None);
                }
                let record = change.create(kind, key, parent, labels.clone())?;
                directories.make(record.id, kind, mapped.or(ground.owner))?;
                Ok(Some(record))
            });
            // Nothing is deleted here after a failure: the id is free again, and its directory may be another's by now.
            if let Some(record) = created? {
                self.starting(&record, &ground)?;
                return Ok(self.mounts_of(&record, &ground.lower));
            }
        }
    }

    /// Tells whoever serves the layers below a new snapshot, unless a layer is about to be unpacked into it.
    fn starting(&self, record: &Record, ground: &Ground) -> Result<(), SnapshotError> {
        let layers: Vec<_> = ground.chain.iter().filter_map(|below| below.remote).collect();
        if layers.is_empty() || record.labels.contains_key(TARGET_LABEL) {
            return Ok(());
        }
        let view = self.storage.metadata.view()?;
        let mut below = record.parent.clone();
        while let Some(name) = below {
            // One that is removed at this moment is no reason to fail.
            let Some(record) = view.find(&name)? else { break };
            if record.remote.is_some() {
                self.lazy.starting(&layers, &record.labels);
                break;
            }
            below = record.parent;
        }
        Ok(())
    }

    /// The mounts of an active snapshot or a view.
    ///
    /// # Errors
    /// There is none of that key, it is committed, or a layer below it is unavailable.
    pub fn mounts(&self, key: &Name) -> Result<Vec<Mount>, SnapshotError> {
        let view = self.storage.metadata.view()?;
        let record = view.get(key)?;
        if record.kind == Kind::Committed {
            return Err(SnapshotError::NoMounts(key.clone()));
        }
        let chain = view.chain(record.parent.as_ref())?;
        drop(view);
        Ok(self.mounts_of(&record, &self.lower(key, &chain)?))
    }

    /// Makes the active snapshot `key` the committed snapshot `name`, with exactly these labels.
    ///
    /// # Errors
    /// As [`crate::metadata::Change::commit`], or its directory cannot be read.
    pub fn commit(
        &self,
        name: &Name,
        key: &Name,
        parent: Option<&Name>,
        labels: Labels,
    ) -> Result<(), SnapshotError> {
        // Counted before the transaction: it may take a while, and nobody else should wait for it.
        let record = self.storage.metadata.view()?.get(key)?;
        let usage = match record.kind {
            Kind::Active => self.scan(&record)?,
            Kind::View | Kind::Committed => Usage::default(),
        };
        self.storage.metadata.change(|change| change.commit(key, name, parent, labels, usage))?;
        Ok(())
    }

    /// Forgets a snapshot. Its directory stays until the next cleanup.
    ///
    /// # Errors
    /// There is none of that name, or another stands on it.
    pub fn remove(&self, name: &Name) -> Result<(), SnapshotError> {
        self.storage.metadata.change(|change| change.remove(name)).map(drop)
    }

    /// What is known of a snapshot.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn stat(&self, name: &Name) -> Result<Record, SnapshotError> {
        self.storage.metadata.view()?.get(name)
    }

    /// Replaces labels; `paths` is the request's field mask.
    ///
    /// # Errors
    /// There is none of that name, or a path is not one of labels.
    pub fn update(&self, name: &Name, paths: &[String], labels: &Labels) -> Result<Record, SnapshotError> {
        self.storage.metadata.change(|change| change.update(name, paths, labels))
    }

    /// Calls `visit` with every snapshot that `filters` select, in one consistent state, until it breaks. Nobody waits
    /// for it, however long it takes.
    ///
    /// # Errors
    /// The database failed.
    pub fn list(
        &self,
        filters: &Filters,
        visit: impl FnMut(Name, Record) -> ControlFlow<()>,
    ) -> Result<(), SnapshotError> {
        self.storage.metadata.view()?.walk(filters, visit)
    }

    /// What a snapshot takes on disk, without its parents: of an active one as it is now, of a committed one as it was
    /// then, of a remote one what was fetched so far.
    ///
    /// # Errors
    /// There is none of that name, or its directory cannot be read.
    pub fn usage(&self, name: &Name) -> Result<Usage, SnapshotError> {
        let record = self.stat(name)?;
        match (&record.remote, record.kind) {
            (Some(layer), _) => Ok(self.lazy.usage(layer)),
            (None, Kind::Active) => self.scan(&record),
            (None, Kind::View | Kind::Committed) => Ok(record.usage),
        }
    }

    fn scan(&self, record: &Record) -> Result<Usage, SnapshotError> {
        let upper = self.storage.directories.upper(record.id);
        disk_usage(&upper).map_err(SnapshotError::io("measure", upper))
    }

    fn ground(&self, key: &Name, parent: Option<&Name>) -> Result<Ground, SnapshotError> {
        let view = self.storage.metadata.view()?;
        view.parent(parent)?;
        let chain = self.chain_as_one(view, parent)?;
        let owner = match chain.first() {
            Some(Below { remote: Some(layer), .. }) => Some(self.lazy.root_owner(layer)?),
            Some(Below { id, remote: None, .. }) => Some(self.storage.directories.owner(*id)?),
            None => None,
        };
        Ok(Ground { lower: self.lower(key, &chain)?, chain, owner })
    }

    fn mounts_of(&self, record: &Record, lower: &[PathBuf]) -> Vec<Mount> {
        let directories = &self.storage.directories;
        let (upper, work) = (directories.upper(record.id), directories.work(record.id));
        mounts(record.kind, Place { upper: &upper, work: &work, lower }, self.overlay)
    }
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots").field("storage", &self.storage).finish_non_exhaustive()
    }
}
