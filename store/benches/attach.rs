//! Attaching a layer whose files are there: what a restart does once for each layer.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, dead_code)]

#[path = "../tests/layers/blob.rs"]
mod blob;
#[path = "../tests/layers/memory.rs"]
mod memory;

use criterion::{BatchSize, BenchmarkId, Criterion};

use self::{
    blob::Blob,
    memory::{Dir, Memory},
};

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let mut group = criterion.benchmark_group("attach");
    for files in [1_000, 100_000, 1_000_000] {
        let blob = Blob::small_files(files, 9);
        let (dir, source) = (Dir::new(), Memory::new(&blob));
        drop(runtime.block_on(dir.open().open_layer(blob.key, source.clone())).unwrap());
        group.bench_function(BenchmarkId::from_parameter(files), |bencher| {
            bencher.iter_batched(
                || dir.open(),
                |store| {
                    assert!(store.attach(blob.key, source.clone()).unwrap().is_some());
                    store
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
}
