//! Deleting layers that nobody needs.

use std::sync::Arc;

use store::LayerKey;

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
        self.attached.hide(key);
        if let Some(layer) = self.opener.store.layer(key) {
            self.deleted.count(&layer.stats());
        }
        if let Err(error) = self.opener.store.remove(key) {
            tracing::warn!(layer = %key, error = crate::logging::chain(&error), "cannot delete a layer");
        }
        self.opener.forget(key);
    }
}
