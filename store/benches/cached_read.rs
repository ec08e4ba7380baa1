//! What a cached read of 4 KiB costs, while the layer is recorded for its profile and while it is not.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, dead_code)]

#[path = "../tests/layers/blob.rs"]
mod blob;
#[path = "../tests/layers/memory.rs"]
mod memory;

use std::{hint::black_box, time::Duration};

use criterion::Criterion;
use store::{Store, StoreConfig};

use self::{
    blob::{Blob, node},
    memory::{Dir, Memory},
};

const LEN: usize = 4096;

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let mut group = criterion.benchmark_group("cached_read");
    let blob = Blob::small_files(2000, LEN);
    for (name, record) in [("unrecorded", Duration::ZERO), ("recorded", Duration::from_secs(3600))] {
        let dir = Dir::new();
        let store = Store::open(StoreConfig { record, ..dir.config() }).unwrap();
        let layer = runtime.block_on(store.open_layer(blob.key, Memory::new(&blob))).unwrap();
        let nodes: Vec<_> = blob.files.keys().map(|name| node(&layer, name)).collect();
        for node in &nodes {
            runtime.block_on(layer.read(*node, 0, LEN)).unwrap();
        }
        let mut next = nodes.iter().cycle();
        let mut buf = [0; LEN];
        group.bench_function(name, |bencher| {
            bencher.iter(|| layer.read_cached(*next.next().unwrap(), 0, black_box(&mut buf)).unwrap());
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
}
