//! Layers to convert: any bytes as a tar stream, with every block that looks like a header given a right checksum.
//!
//! A layer is planned or refused. What is planned is written, and writing the result again changes nothing.

#![no_main]

use std::io::Read;

use estargz::{
    footer,
    write::{Level, Options, Plan, build},
};
use libfuzzer_sys::fuzz_target;

/// Sparse files may claim gigabytes, which are written out.
const MAX_CONTENT: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut tar = data.to_vec();
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    let options = Options {
        chunk_size: const { std::num::NonZeroU64::new(600).unwrap() },
        level: Level::new(1).unwrap(),
        prioritized: vec!["d/file".to_owned()],
        ..Options::default()
    };
    let Ok(plan) = Plan::read(tar.as_slice(), &options) else { return };
    if plan.content_bytes() > MAX_CONTENT {
        return;
    }
    let once = build(&tar, &options).expect("a planned layer is written");
    let tail = &once.blob[once.blob.len() - footer::MAX_LEN..];
    footer::parse(tail, once.blob.len() as u64).expect("a blob ends with a footer");
    let twice = build(&inflate(&once.blob), &options).expect("what was written is planned again");
    assert!(once.blob == twice.blob);
});

/// All gzip members of a blob, one after another.
fn inflate(blob: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut data).expect("a blob is gzip");
    data
}
