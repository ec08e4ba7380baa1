//! Layers below the FUSE mount.

use std::{io, path::PathBuf, sync::Arc};

use fusefs::{AttachError, Connection, Slot};
use store::{Layer, LayerKey};

use super::slots::Slots;
use crate::lazy::{FallBack, FallBackReason, RemoteLayer};

/// The connection with the slots in it.
#[derive(Debug)]
pub(super) struct Attached {
    connection: Arc<Connection>,
    slots: Slots,
}

// === impl Attached ===

impl Attached {
    pub(super) fn new(connection: Arc<Connection>, slots: Slots) -> Self {
        Self { connection, slots }
    }

    /// Shows `layer` in its slot, a new one if it has none.
    pub(super) fn show(&self, layer: &Arc<Layer>) -> Result<RemoteLayer, FallBack> {
        let local = |reason: String| FallBack { reason, code: FallBackReason::Local };
        let key = layer.key();
        let slot = self
            .slots
            .of(key)
            .map_err(|error: io::Error| local(format!("cannot give out a slot: {error}")))?;
        self.show_in(slot, layer).map_err(|error| local(format!("cannot show the layer: {error}")))?;
        Ok(RemoteLayer { key, slot })
    }

    /// Shows `layer` in a slot that a snapshot remembers.
    pub(super) fn show_in(&self, slot: Slot, layer: &Arc<Layer>) -> Result<(), AttachError> {
        match self.connection.attach(slot, Arc::clone(layer)) {
            // A slot belongs to one layer for ever, so what is in it is this layer.
            Err(_) if self.connection.is_attached(slot) => Ok(()),
            result => result,
        }
    }

    /// Whether there is a layer in `slot`.
    pub(super) fn is_shown(&self, slot: Slot) -> bool {
        self.connection.is_attached(slot)
    }

    /// The directory of `slot`.
    pub(super) fn path(&self, slot: Slot) -> PathBuf {
        self.connection.layer_path(slot)
    }

    /// The slot of `key`, if it has one.
    pub(super) fn slot(&self, key: &LayerKey) -> Option<Slot> {
        self.slots.get(key)
    }

    /// Takes the layer away.
    pub(super) fn hide(&self, key: &LayerKey) {
        if let Some(slot) = self.slots.forget(key) {
            self.connection.detach(slot);
        }
    }
}
