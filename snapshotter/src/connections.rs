//! The FUSE connections that show layers: one that has extended attributes, and one that has none.
//!
//! For every file that it looks up, overlayfs asks for `trusted.overlay.metacopy`, for every directory for two attributes
//! more, in each container anew, and the kernel keeps no answer: nearly half of what a start asks. It never asks again on a
//! connection that said ENOSYS once (`fuse_getxattr`, `no_getxattr`). So there are two, and containers get layers without
//! any attribute, which is nearly every one, from that which has none. What it says instead of `ENODATA` then is
//! `EOPNOTSUPP`, so it is not for those who cannot do with that ([`Absence`]). Everything is on both: what a container was
//! given by one daemon every other daemon goes on serving, whatever it would have given.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use estargz::NodeId;
use fusefs::{AttachError, Chain, Connection, Counters, MountError, Slot};
use parking_lot::Mutex;
use store::Layer;

use crate::lazy::Absence;

/// See the module.
#[derive(Debug)]
pub struct Connections {
    /// Where layers have their attributes.
    all: Connection,
    /// Where nothing has attributes.
    plain: Connection,
    /// Slots in which nothing has an attribute; held while both connections change.
    without: Mutex<BTreeSet<Slot>>,
}

// === impl Connections ===

impl Connections {
    /// `plain` is one whose options say that nothing has attributes.
    pub fn new(all: Connection, plain: Connection) -> Self {
        Self { all, plain, without: Mutex::default() }
    }

    /// Both connections.
    pub fn each(&self) -> [&Connection; 2] {
        [&self.all, &self.plain]
    }

    /// Begins to answer on both.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn serve(&self) -> Result<(), MountError> {
        self.each().into_iter().try_for_each(Connection::serve)
    }

    /// Shows a layer at [`Self::layer_path`].
    ///
    /// # Errors
    /// There was a layer in the slot before.
    pub fn attach(&self, slot: Slot, layer: &Arc<Layer>) -> Result<(), AttachError> {
        let plain = layer.index().has_no_xattrs() && layer.index().has_no_opaque();
        self.show(slot, plain, |connection| connection.attach(slot, Arc::clone(layer)))
    }

    /// Shows the layers of a chain, the uppermost first, as one tree at [`Self::layer_path`]. Nothing may be below it in an
    /// overlay: it has no opaque directories.
    ///
    /// # Errors
    /// There was something in the slot before, or there are too many layers.
    pub fn attach_chain(&self, slot: Slot, layers: &[(Slot, Arc<Layer>)]) -> Result<(), AttachError> {
        let plain = layers.iter().all(|(_, layer)| layer.index().has_no_xattrs());
        let chain = Arc::new(Chain::new(layers.iter().cloned())?);
        self.show(slot, plain, |connection| connection.attach_chain(slot, Arc::clone(&chain)))
    }

    /// Attaches in both places as one step: of two who attach the same layer, the second finds it in both.
    fn show(
        &self,
        slot: Slot,
        plain: bool,
        attach: impl Fn(&Connection) -> Result<(), AttachError>,
    ) -> Result<(), AttachError> {
        let mut without = self.without.lock();
        self.each().into_iter().try_for_each(attach)?;
        if plain {
            without.insert(slot);
        }
        Ok(())
    }

    /// Takes a layer or a chain away.
    pub fn detach(&self, slot: Slot) {
        let mut without = self.without.lock();
        for connection in self.each() {
            connection.detach(slot);
        }
        without.remove(&slot);
    }

    /// Makes the kernel ask again for a file's bytes: those that it has may be wrong. Soon, not at once.
    pub fn forget_pages(&self, slot: Slot, file: NodeId) {
        self.each().into_iter().for_each(|connection| connection.forget_pages(slot, file));
    }

    /// Whether a layer or a chain is in the slot.
    pub fn is_attached(&self, slot: Slot) -> bool {
        self.all.is_attached(slot)
    }

    /// Where the layer or the chain in a slot is for such a user, to be named in `lowerdir=`.
    pub fn layer_path(&self, slot: Slot, absence: Absence) -> PathBuf {
        let plain = absence == Absence::Unsupported && self.without.lock().contains(&slot);
        let connection = if plain { &self.plain } else { &self.all };
        connection.layer_path(slot)
    }

    /// What was asked and answered on both.
    pub fn counters(&self) -> Counters {
        self.all.counters() + self.plain.counters()
    }
}
