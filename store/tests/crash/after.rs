//! What has to hold once the machine is back.

use std::{collections::BTreeSet, sync::Arc};

use store::{Layer, Store, StoreConfig};

use crate::{
    blob::{Blob, node},
    machine::Machine,
    memory::{Dir, Fault, Memory},
    recorder::{Entry, Recorder},
};

/// What was told about the layer before the power went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing, or it was on its way out.
    Nothing,
    /// It is there, and these chunks were recorded.
    There(BTreeSet<u32>),
}

/// How far to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// At what is there.
    OnDisk,
    /// And at what comes of using it.
    Using,
}

/// The log of a store that does as little as it can.
pub(crate) type Log = Vec<Entry<Told>>;

/// A store on a disk that is recorded.
pub(crate) struct Node {
    pub(crate) dir: Dir,
    pub(crate) disk: Arc<Recorder<Told>>,
    pub(crate) store: Arc<Store>,
}

// === impl Node ===

impl Node {
    pub(crate) fn start(machine: &Machine) -> Self {
        let dir = Dir::new();
        let disk = Arc::new(Recorder::start(machine, &dir.0.path().join("layers")));
        let store = open(&dir, &disk);
        Self { dir, disk, store }
    }

    pub(crate) fn restart(self) -> Self {
        let Self { dir, disk, store } = self;
        drop(store);
        let store = open(&dir, &disk);
        Self { dir, disk, store }
    }
}

fn open(dir: &Dir, disk: &Arc<Recorder<Told>>) -> Arc<Store> {
    let config = StoreConfig {
        min_window: 4096,
        max_window: 16 << 10,
        decode_threads: 1,
        idle_threads: 0,
        record: std::time::Duration::ZERO,
        ..dir.config()
    };
    Store::open_on(disk.clone(), config).unwrap()
}

/// Starts a store on `machine` and looks at the layer. Says what the store did to the disk.
pub(crate) async fn check(machine: &Machine, blob: &Blob, told: &Told, look: Look) -> Log {
    let node = Node::start(machine);
    let source = Memory::new(blob);
    source.set(Fault::Down);
    let layer = node.store.attach(blob.key, source.clone()).unwrap();
    if let Some(layer) = &layer {
        let there = node.dir.recorded(layer);
        served(layer, blob);
        if let Told::There(chunks) = told {
            assert!(chunks.is_subset(&there), "{chunks:?} were recorded, {there:?} are there");
        }
    } else {
        assert_eq!(*told, Told::Nothing, "the layer is gone");
    }
    if look == Look::Using {
        source.set(Fault::None);
        let layer = node.store.open_layer(blob.key, source).await.unwrap();
        for (name, data) in &blob.files {
            let bytes = layer.read(self::node(&layer, name), 0, data.len()).await.unwrap();
            assert!(bytes == *data, "{name}");
        }
        node.store.flush();
        let there = node.dir.recorded(&layer);
        assert_eq!(there.len() as u32, layer.index().chunk_count(), "all was read and recorded");
    }
    node.disk.log()
}

/// What is served without a source is right.
fn served(layer: &Layer, blob: &Blob) {
    for (name, data) in &blob.files {
        let mut bytes = vec![0xaa; data.len()];
        if let Some(len) = layer.read_cached(node(layer, name), 0, &mut bytes).unwrap() {
            assert!(len == data.len() && bytes == *data, "{name} is served wrong");
        }
    }
}
