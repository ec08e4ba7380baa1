//! Deleting layers that nobody needs.

use std::sync::Arc;

use store::{LayerKey, Retired};

use super::{attached::Attached, opener::Opener, report::Deleted};

/// What a deletion goes through: first the kernel loses sight of a layer, then the disk.
#[derive(Debug)]
pub(super) struct Removal {
    opener: Arc<Opener>,
    attached: Arc<Attached>,
    /// Counters of layers that are gone.
    pub(super) deleted: Deleted,
}

// === impl Removal ===

impl Removal {
    pub(super) fn new(opener: Arc<Opener>, attached: Arc<Attached>) -> Arc<Self> {
        Arc::new(Self { opener, attached, deleted: Deleted::default() })
    }

    /// Deletes the layer `key`; what cannot be deleted is tried again by the next Cleanup. May take its time.
    pub(super) fn delete(&self, key: &LayerKey) {
        delete(self.retire(key));
    }

    /// Makes the layer `key` be gone, and gives what is left of it on disk.
    pub(super) fn retire(&self, key: &LayerKey) -> Option<Retired> {
        self.attached.hide(key);
        if let Some(layer) = self.opener.store.layer(key) {
            self.deleted.count(&layer.stats());
        }
        let retired = self.opener.store.retire(key);
        self.opener.forget(key);
        retired.unwrap_or_else(|error| {
            tracing::warn!(layer = %key, error = crate::logging::chain(&error), "cannot delete a layer");
            None
        })
    }

    /// Takes the layer `key` away and leaves its files for the next image that has it.
    pub(super) fn put_aside(&self, key: &LayerKey) {
        self.attached.hide(key);
        if let Some(layer) = self.opener.store.layer(key) {
            self.deleted.count(&layer.stats());
            self.opener.store.close(key);
        }
        self.opener.forget(key);
    }
}

/// Deletes what is left of layers. Takes its time.
pub(super) fn delete(retired: impl IntoIterator<Item = Retired>) {
    for retired in retired {
        if let Err(error) = retired.delete() {
            tracing::warn!(error = crate::logging::chain(&error), "cannot delete the files of a layer");
        }
    }
}
