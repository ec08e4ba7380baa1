//! Which layer is in which slot.
//!
//! Requests read the table without a lock. A change publishes a new table, so that a request sees the one before or
//! the one after it. A slot serves one layer in the life of a connection: the kernel keeps the old layer's names and
//! pages under the same inode numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::{LayerTree, Slot};

/// The layers of a connection.
pub(crate) struct LayerTable {
    current: ArcSwap<Attached>,
    /// Slots that were ever used; held while a new table is made.
    used: Mutex<BTreeSet<Slot>>,
}

/// The layers at one moment.
#[derive(Clone)]
pub(crate) struct Attached {
    layers: BTreeMap<Slot, Arc<dyn LayerTree>>,
    changed: SystemTime,
}

// === impl LayerTable ===

impl LayerTable {
    pub(crate) fn new() -> Self {
        let none = Attached { layers: BTreeMap::new(), changed: SystemTime::now() };
        Self { current: ArcSwap::from_pointee(none), used: Mutex::new(BTreeSet::new()) }
    }

    /// The layers now.
    pub(crate) fn now(&self) -> arc_swap::Guard<Arc<Attached>> {
        self.current.load()
    }

    /// Puts a layer into a slot; false if the slot was ever used.
    pub(crate) fn attach(&self, slot: Slot, layer: Arc<dyn LayerTree>) -> bool {
        let mut used = self.used.lock();
        if !used.insert(slot) {
            return false;
        }
        let mut next = self.successor();
        next.layers.insert(slot, layer);
        self.current.store(Arc::new(next));
        true
    }

    /// Takes the layer out of a slot.
    pub(crate) fn detach(&self, slot: Slot) -> Option<Arc<dyn LayerTree>> {
        let _used = self.used.lock();
        let mut next = self.successor();
        let layer = next.layers.remove(&slot)?;
        self.current.store(Arc::new(next));
        Some(layer)
    }

    /// A copy to change. Its time is later than that of every table before, whatever the clock says: the kernel takes
    /// a listing of the root that it has for the current one as long as the time is the same.
    fn successor(&self) -> Attached {
        let mut next = Attached::clone(&self.current.load());
        next.changed = SystemTime::now().max(next.changed + Duration::from_nanos(1));
        next
    }
}

// === impl Attached ===

impl Attached {
    /// The layer in a slot.
    pub(crate) fn layer(&self, slot: Slot) -> Option<&Arc<dyn LayerTree>> {
        self.layers.get(&slot)
    }

    /// The layers in slots after `slot`, in the order of their slots.
    pub(crate) fn after(&self, slot: Option<Slot>) -> impl Iterator<Item = (Slot, &Arc<dyn LayerTree>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = slot.map_or(Unbounded, Excluded);
        self.layers.range((start, Unbounded)).map(|(&slot, layer)| (slot, layer))
    }

    pub(crate) fn len(&self) -> usize {
        self.layers.len()
    }

    /// When the table last changed.
    pub(crate) fn changed(&self) -> SystemTime {
        self.changed
    }
}
