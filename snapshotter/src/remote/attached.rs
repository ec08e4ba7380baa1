//! Layers and chains of layers below the FUSE mounts.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc};

use estargz::NodeId;
use fusefs::{AttachError, Slot};
use parking_lot::Mutex;
use store::{Layer, LayerKey};

use super::slots::Slots;
use crate::{
    connections::Connections,
    lazy::{Absence, FallBack, FallBackReason, RemoteLayer},
};

/// The mounts with the slots in them.
#[derive(Debug)]
pub(super) struct Attached {
    connections: Arc<Connections>,
    slots: Slots,
    /// Slots of the chains that are shown.
    chains: Mutex<BTreeSet<Slot>>,
}

// === impl Attached ===

impl Attached {
    pub(super) fn new(connections: Arc<Connections>, slots: Slots) -> Self {
        Self { connections, slots, chains: Mutex::default() }
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
        match self.connections.attach(slot, layer) {
            // A slot belongs to one layer for ever, so what is in it is this layer.
            Err(_) if self.connections.is_attached(slot) => Ok(()),
            result => result,
        }
    }

    /// A slot for a chain.
    pub(super) fn chain_slot(&self) -> io::Result<Slot> {
        self.slots.of_chain()
    }

    /// Shows the layers of a chain, the uppermost first, as one tree in the slot that a snapshot remembers. The layers
    /// must be shown in theirs.
    pub(super) fn show_chain(&self, slot: Slot, layers: &[(Slot, Arc<Layer>)]) -> Result<(), AttachError> {
        let mut chains = self.chains.lock();
        if chains.contains(&slot) {
            return Ok(());
        }
        self.connections.attach_chain(slot, layers)?;
        chains.insert(slot);
        Ok(())
    }

    /// The slots of the chains that are shown.
    pub(super) fn chains(&self) -> BTreeSet<Slot> {
        self.chains.lock().clone()
    }

    /// Takes chains away.
    pub(super) fn hide_chains(&self, gone: &BTreeSet<Slot>) {
        let mut chains = self.chains.lock();
        for &slot in gone.iter().filter(|slot| chains.remove(slot)) {
            self.connections.detach(slot);
        }
    }

    /// Whether there is something in `slot`.
    pub(super) fn is_shown(&self, slot: Slot) -> bool {
        self.connections.is_attached(slot)
    }

    /// The directory of `slot` for such a user.
    pub(super) fn path(&self, slot: Slot, absence: Absence) -> PathBuf {
        self.connections.layer_path(slot, absence)
    }

    /// The slot of `key`, if it has one.
    pub(super) fn slot(&self, key: &LayerKey) -> Option<Slot> {
        self.slots.get(key)
    }

    /// Makes the kernel forget what it has of a file's bytes, if the layer is shown.
    pub(super) fn forget_pages(&self, key: &LayerKey, file: NodeId) {
        if let Some(slot) = self.slots.get(key) {
            self.connections.forget_pages(slot, file);
        }
    }

    /// Takes the layer away.
    pub(super) fn hide(&self, key: &LayerKey) {
        if let Some(slot) = self.slots.forget(key) {
            self.connections.detach(slot);
        }
    }
}
