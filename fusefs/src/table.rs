//! What is in which slot: layers, and chains of them.
//!
//! Requests read the table without a lock. A change publishes a new table, so that a request sees the one before or
//! the one after it. A slot serves one layer or chain in the life of a connection: the kernel keeps the old names
//! and pages under the same inode numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::{Failure, LayerTree, Slot, shown::Shown};

/// The layers of a connection.
pub(crate) struct LayerTable {
    current: ArcSwap<Attached>,
    /// Slots that were ever used; held while a new table is made.
    used: Mutex<BTreeSet<Slot>>,
}

/// What is attached at one moment.
#[derive(Clone)]
pub(crate) struct Attached {
    slots: BTreeMap<Slot, Shown>,
    changed: SystemTime,
}

// === impl LayerTable ===

impl LayerTable {
    pub(crate) fn new() -> Self {
        let none = Attached { slots: BTreeMap::new(), changed: SystemTime::now() };
        Self { current: ArcSwap::from_pointee(none), used: Mutex::new(BTreeSet::new()) }
    }

    /// The layers now.
    pub(crate) fn now(&self) -> arc_swap::Guard<Arc<Attached>> {
        self.current.load()
    }

    /// Puts something into a slot; false if the slot was ever used.
    pub(crate) fn attach(&self, slot: Slot, shown: Shown) -> bool {
        let mut used = self.used.lock();
        if !used.insert(slot) {
            return false;
        }
        let mut next = self.successor();
        next.slots.insert(slot, shown);
        self.current.store(Arc::new(next));
        true
    }

    /// Empties a slot.
    pub(crate) fn detach(&self, slot: Slot) -> Option<Shown> {
        let _used = self.used.lock();
        let mut next = self.successor();
        let shown = next.slots.remove(&slot)?;
        self.current.store(Arc::new(next));
        Some(shown)
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
    /// What is in a slot.
    pub(crate) fn shown(&self, slot: Slot) -> Result<&Shown, Failure> {
        self.slots.get(&slot).ok_or(Failure::Stale)
    }

    /// The layer in a slot.
    pub(crate) fn layer(&self, slot: Slot) -> Result<&Arc<dyn LayerTree>, Failure> {
        self.shown(slot)?.layer()
    }

    /// All layers, each once: those that chains are made of are in slots of their own.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Arc<dyn LayerTree>> {
        self.slots.values().filter_map(|shown| shown.layer().ok())
    }

    /// The slots after `slot` that are in use.
    pub(crate) fn after(&self, slot: Option<Slot>) -> impl Iterator<Item = Slot> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = slot.map_or(Unbounded, Excluded);
        self.slots.range((start, Unbounded)).map(|(&slot, _)| slot)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// When the table last changed.
    pub(crate) fn changed(&self) -> SystemTime {
        self.changed
    }
}
