//! What a read costs before and after its bytes: which window to ask for, and which chunks are here.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use store::benched::{Map, Misses, SmallFiles};

const MILLION: u32 = 1_000_000;

fn window_choice(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("window_choice");
    let layer = SmallFiles::new(MILLION);
    for (name, bytes) in [("128 KiB", 128 << 10), ("1 MiB", 1 << 20), ("8 MiB", 8 << 20)] {
        let mut at = 1u32;
        group.bench_function(BenchmarkId::new("cut", name), |bencher| {
            bencher.iter(|| {
                at = (at + 300_007) % (MILLION / 3);
                layer.cut(at * 3 + 1, black_box(bytes)).unwrap()
            });
        });
    }
    let mut misses = Misses::default();
    let mut at = 0u64;
    group.bench_function("reach", |bencher| {
        bencher.iter(|| {
            at = (at + (1 << 40)) % (1 << 44);
            misses.reach(black_box(at))
        });
    });
    group.finish();
}

fn chunk_map(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunk_map");
    let open = || {
        let file = tempfile::tempfile().unwrap();
        Map::create(&file, MILLION).unwrap();
        (Map::open(file.try_clone().unwrap(), MILLION).unwrap(), file)
    };
    let (map, _) = open();
    let mut at = 0;
    let mut next = || {
        at = (at + 300_007) % MILLION;
        at
    };
    group.bench_function("has", |bencher| bencher.iter(|| map.has(black_box(next()))));
    group.bench_function("add", |bencher| bencher.iter(|| map.add(black_box(next()))));
    let (map, file) = open();
    assert!((0..MILLION - 1).all(|chunk| map.add(chunk)));
    group.bench_function("first missing of a million", |bencher| {
        bencher.iter(|| assert_eq!(black_box(&map).first_missing(), Some(MILLION - 1)));
    });
    map.record(MILLION).unwrap();
    group.bench_function("open of a million", |bencher| {
        bencher.iter(|| Map::open(file.try_clone().unwrap(), MILLION).unwrap().present());
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    window_choice(&mut criterion);
    chunk_map(&mut criterion);
    criterion.final_summary();
}
