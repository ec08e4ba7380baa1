//! From a compressed member to verified bytes: inflate, SHA-256, and both, for chunks of several sizes.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, io::Write as _};

use criterion::{BenchmarkId, Criterion, Throughput};
use estargz::{
    Digest,
    decode::{Inflater, verify},
};
use flate2::{Compression, write::GzEncoder};

/// Bytes like those of programs: runs that occurred before between others that are new. They compress to about a half.
fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut data: Vec<u8> = Vec::with_capacity(len + 64);
    while data.len() < len {
        let choice = next();
        if choice % 3 != 0 && data.len() > 4096 {
            let start = data.len() - 1 - (choice >> 8) as usize % 4000;
            let run = 4 + (choice >> 40) as usize % 12;
            let end = (start + run).min(data.len());
            data.extend_from_within(start..end);
        } else {
            data.extend_from_slice(&next().to_le_bytes());
        }
    }
    data.truncate(len);
    data
}

fn bench(criterion: &mut Criterion) {
    for (name, len) in [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20), ("4 MiB", 4 << 20)] {
        let data = bytes(len);
        let digest = Digest::of(&data);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::new(7));
        gzip.write_all(&data).unwrap();
        let member = gzip.finish().unwrap();
        let need = len as u64;
        let mut group = criterion.benchmark_group("chunk_decode");
        group.throughput(Throughput::Bytes(need));
        let mut inflater = Inflater::new();
        group.bench_function(BenchmarkId::new("inflate", name), |bencher| {
            bencher.iter(|| black_box(inflater.inflate(black_box(&member), need).unwrap()).len());
        });
        group.bench_function(BenchmarkId::new("verify", name), |bencher| {
            bencher.iter(|| verify(black_box(&data), &digest).unwrap());
        });
        group.bench_function(BenchmarkId::new("both", name), |bencher| {
            bencher.iter(|| verify(inflater.inflate(black_box(&member), need).unwrap(), &digest).unwrap());
        });
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
}
