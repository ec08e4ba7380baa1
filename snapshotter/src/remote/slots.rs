//! Which number each layer, and each chain of layers, has below the FUSE mount.
//!
//! A number is given out once and never again: the kernel keeps names and pages of a slot for as long as its connection
//! lives, and a successor of this daemon may take the connection over. The next number is in a file that is replaced
//! before a number is used. It need not be synced: after a power cut no connection lives.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use fusefs::Slot;
use parking_lot::Mutex;
use store::LayerKey;

use crate::lazy::RemoteLayer;

/// Numbers for layers.
#[derive(Debug)]
pub(super) struct Slots {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    next: u32,
    of: BTreeMap<LayerKey, Slot>,
}

// === impl Slots ===

impl Slots {
    /// Reads the next number from the file `path`; `known` are the layers of all snapshots, `chains` the slots of chains.
    pub(super) fn open(
        path: PathBuf,
        known: impl IntoIterator<Item = RemoteLayer>,
        chains: impl IntoIterator<Item = Slot>,
    ) -> io::Result<Self> {
        let kept = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().unwrap_or(1),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 1,
            Err(error) => return Err(error),
        };
        let of: BTreeMap<_, _> = known.into_iter().map(|layer| (layer.key, layer.slot)).collect();
        let used = of.values().copied().chain(chains);
        let highest = used.map(Slot::get).max().unwrap_or(0);
        let next = kept.max(highest.saturating_add(1));
        Ok(Self { path, inner: Mutex::new(Inner { next, of }) })
    }

    /// The slot of `key`, a new one if it has none.
    pub(super) fn of(&self, key: LayerKey) -> io::Result<Slot> {
        let mut inner = self.inner.lock();
        if let Some(slot) = inner.of.get(&key) {
            return Ok(*slot);
        }
        let slot = inner.next(&self.path)?;
        inner.of.insert(key, slot);
        Ok(slot)
    }

    /// A new slot, for a chain of layers.
    pub(super) fn of_chain(&self) -> io::Result<Slot> {
        self.inner.lock().next(&self.path)
    }

    /// Forgets the slot of `key`, which is not given out again.
    pub(super) fn forget(&self, key: &LayerKey) -> Option<Slot> {
        self.inner.lock().of.remove(key)
    }

    /// The slot of `key`, if it has one.
    pub(super) fn get(&self, key: &LayerKey) -> Option<Slot> {
        self.inner.lock().of.get(key).copied()
    }
}

// === impl Inner ===

impl Inner {
    fn next(&mut self, path: &Path) -> io::Result<Slot> {
        let after = self.next.checked_add(1).ok_or_else(|| io::Error::other("all slots were used"))?;
        let slot = Slot::new(self.next).ok_or_else(|| io::Error::other("a slot is never 0"))?;
        write(path, after)?;
        self.next = after;
        Ok(slot)
    }
}

fn write(path: &Path, next: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, format!("{next}\n"))?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: char) -> LayerKey {
        let digest = format!("sha256:{}", byte.to_string().repeat(64)).parse().unwrap();
        LayerKey { blob: digest, toc: digest }
    }

    #[test]
    fn a_layer_keeps_its_slot_and_no_number_comes_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("slots");
        let slots = Slots::open(path.clone(), [], []).unwrap();
        let a = slots.of(key('a')).unwrap();
        let b = slots.of(key('b')).unwrap();
        assert_eq!((slots.of(key('a')).unwrap(), a.get(), b.get()), (a, 1, 2));
        assert_eq!(slots.forget(&key('a')), Some(a));
        assert_eq!(slots.of(key('a')).unwrap().get(), 3);

        let again = Slots::open(path, [RemoteLayer { key: key('b'), slot: b }], []).unwrap();
        assert_eq!((again.get(&key('b')), again.get(&key('a'))), (Some(b), None));
        assert_eq!(again.of(key('a')).unwrap().get(), 4);
    }

    #[test]
    fn a_lost_file_does_not_give_out_what_snapshots_use() {
        let directory = tempfile::tempdir().unwrap();
        let used = RemoteLayer { key: key('b'), slot: Slot::new(40).unwrap() };
        let slots = Slots::open(directory.path().join("slots"), [used], [Slot::new(50).unwrap()]).unwrap();
        assert_eq!(slots.of(key('c')).unwrap().get(), 51);
        assert_eq!(slots.of_chain().unwrap().get(), 52);
    }
}
