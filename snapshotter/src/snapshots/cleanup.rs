//! Cleanup: what was forgotten is deleted, off every lock but the one that keeps layers from going while they are opened.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use store::LayerKey;

use super::Snapshots;
use crate::{directories::remove_tree, error::SnapshotError, metadata::InUse};

// === impl Snapshots ===

impl Snapshots {
    /// Deletes directories and layers that no snapshot refers to. While a remote Prepare is at work the layers are left
    /// to its end.
    ///
    /// # Errors
    /// The database failed. What cannot be deleted is logged, and tried again next time.
    pub async fn cleanup(self: &Arc<Self>) -> Result<(), SnapshotError> {
        let snapshots = Arc::clone(self);
        blocking(move || snapshots.cleanup_directories()).await?;
        self.cleanup_layers().await
    }

    /// Deletes directories that no snapshot refers to, as `cleanup` does and the start of a daemon should.
    ///
    /// # Errors
    /// The database failed.
    pub fn cleanup_directories(&self) -> Result<(), SnapshotError> {
        let _alone = self.deleting.lock();
        for path in self.storage.orphans()? {
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove the directory of a removed snapshot");
            }
        }
        Ok(())
    }

    pub(super) async fn cleanup_layers(self: &Arc<Self>) -> Result<(), SnapshotError> {
        // Set first: a Prepare that keeps us out here looks at it after it let go.
        self.layers_cleanup_due.store(true, Ordering::SeqCst);
        let Ok(alone) = self.layers.try_write() else { return Ok(()) };
        self.layers_cleanup_due.store(false, Ordering::SeqCst);
        let snapshots = Arc::clone(self);
        let (gone, layers) = blocking(move || {
            // Those that are shown first: a chain is recorded before it is shown.
            let shown = snapshots.lazy.chains();
            let InUse { layers, chains } = snapshots.storage.in_use()?;
            Ok((&shown - &chains, layers))
        })
        .await?;
        let in_use: BTreeSet<LayerKey> = layers.into_iter().map(|layer| layer.key).collect();
        let leftovers = self.lazy.cleanup(&gone, &in_use).await;
        drop(alone);
        // Gigabytes of files: no Prepare should wait for them.
        blocking(move || {
            leftovers();
            Ok(())
        })
        .await
    }
}

/// Runs `work` where it may block. It runs to its end even if the caller goes away.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, SnapshotError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(SnapshotError::Panicked),
        Err(_) => Err(SnapshotError::Stopping),
    }
}
