//! SHA-256 of independent chunks by every implementation that could be used: what a core does in a second.
//!
//! Processors without SHA extensions are had on others by masking: `OPENSSL_ia32cap=:~0x20000000` for aws-lc-rs,
//! `RUSTFLAGS='--cfg sha2_backend="soft"'` for sha2. See `docs/benchmarks.md`.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[cfg(target_arch = "x86_64")]
#[path = "sha256/lanes.rs"]
mod lanes;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use estargz::Digest;

/// As many as the widest implementation takes at once.
const CHUNKS: usize = 16;

fn chunks(len: usize) -> Vec<Vec<u8>> {
    (0..CHUNKS).map(|chunk| (0..len).map(|at| (at * 31 + at / 97 + chunk * 7) as u8).collect()).collect()
}

fn sha2(data: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(data).into()
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn avx2(chunks: &[Vec<u8>]) -> Vec<[u8; 32]> {
    let lanes = |chunks: &[Vec<u8>]| {
        let messages: [&[u8]; 8] = std::array::from_fn(|lane| chunks[lane].as_slice());
        // SAFETY: only called where the processor has AVX2.
        unsafe { lanes::avx2::hash(&messages) }
    };
    chunks.chunks(8).flat_map(lanes).collect()
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn avx512(chunks: &[Vec<u8>]) -> Vec<[u8; 32]> {
    let messages: [&[u8]; 16] = std::array::from_fn(|lane| chunks[lane].as_slice());
    // SAFETY: only called where the processor has AVX-512 F and BW.
    unsafe { lanes::avx512::hash(&messages) }.to_vec()
}

/// Gives the digests of as many chunks.
type Several = fn(&[Vec<u8>]) -> Vec<[u8; 32]>;

/// What hashes several chunks at once on this processor.
fn several_at_once() -> Vec<(&'static str, Several)> {
    let mut found: Vec<(_, Several)> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") {
            found.push(("8 lanes of AVX2", avx2));
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            found.push(("16 lanes of AVX-512", avx512));
        }
    }
    found
}

/// Figures of what hashes wrongly would mean nothing.
fn check() {
    for len in (0..=300).chain([4095, 4096, 4097]) {
        let chunks = chunks(len);
        let expected: Vec<_> = chunks.iter().map(|chunk| sha2(chunk)).collect();
        for (name, hash) in several_at_once() {
            assert_eq!(hash(&chunks), expected, "{name}, {len} bytes");
        }
    }
}

fn bench(criterion: &mut Criterion) {
    for (name, len) in [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)] {
        let chunks = chunks(len);
        let mut group = criterion.benchmark_group("sha256");
        group.throughput(Throughput::Bytes((CHUNKS * len) as u64));
        group.bench_function(BenchmarkId::new("aws-lc-rs", name), |bencher| {
            bencher.iter(|| chunks.iter().map(|chunk| Digest::of(black_box(chunk))).collect::<Vec<_>>());
        });
        group.bench_function(BenchmarkId::new("sha2", name), |bencher| {
            bencher.iter(|| chunks.iter().map(|chunk| sha2(black_box(chunk))).collect::<Vec<_>>());
        });
        for (several, hash) in several_at_once() {
            group.bench_function(BenchmarkId::new(several, name), |bencher| {
                bencher.iter(|| hash(black_box(&chunks)));
            });
        }
        group.finish();
    }
}

fn main() {
    check();
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
}
