//! Blobs that go from the reference implementation of eStargz, the Go library, to ours and back.
//!
//! Each blob's listing is compared node by node, from three sides: what was put into the archive, what the
//! library says, and what our index and decoder say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod archive;
mod layer;
mod sparse;
mod stored;
mod trees;

use std::{env, fs, num::NonZeroU64, path::Path};

use estargz::{
    Sha256,
    write::{self, Level, Options},
};
use flate2::read::MultiGzDecoder;
use testkit::{golden, requires, skip_unless};

use crate::{
    archive::Archive,
    layer::{Decoder, Layer, assert_same, listed, mounted},
};

/// The library builds a blob: is it the same to us, and to what was put in?
fn read_of_go(archive: Archive, args: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let (tar, blob) = (dir.path().join("layer.tar"), dir.path().join("layer.esgz"));
    let (bytes, truth) = archive.finish();
    fs::write(&tar, bytes).unwrap();
    let built = golden::build(&tar, &blob, args).unwrap();
    let list = listed(golden::verify(&blob, &built.toc_digest).unwrap());
    assert_same(&list, &listed(truth.into_values()));
    let blob = fs::read(&blob).unwrap();
    assert_eq!(uncompressed_digest(&blob), built.diff_id);
    let layer = Layer::open(&blob, Decoder::OneGo);
    assert_eq!(layer.toc_digest.to_string(), built.toc_digest);
    let prioritized = args.iter().any(|arg| arg.starts_with("-prioritized"));
    assert_eq!(layer.index.prefetch_end().is_some(), prioritized);
    assert_same(&layer.nodes(), &mounted(list));
}

/// We build a blob: does the library verify it, and is it the same to it, and to us?
fn verified_by_go(archive: Archive, variants: &[Options]) {
    let dir = tempfile::tempdir().unwrap();
    let (tar, truth) = archive.finish();
    let truth = listed(truth.into_values());
    for options in variants {
        let built = write::build(&tar, options).unwrap();
        assert_eq!(uncompressed_digest(&built.blob), built.diff_id.to_string());
        let blob = dir.path().join("layer.esgz");
        fs::write(&blob, &built.blob).unwrap();
        let list = golden::verify(&blob, &built.toc_digest.to_string());
        assert_same(&listed(list.unwrap_or_else(|error| panic!("{options:?}: {error:#}"))), &truth);
        let layer = Layer::open(&built.blob, Decoder::Stream);
        assert_eq!(layer.toc_digest, built.toc_digest);
        assert_same(&layer.nodes(), &mounted(truth.clone()));
    }
}

fn uncompressed_digest(blob: &[u8]) -> String {
    let mut sum = Sha256::new();
    let mut reader = MultiGzDecoder::new(blob);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match std::io::Read::read(&mut reader, &mut buffer).unwrap() {
            0 => return sum.finish().to_string(),
            len => sum.update(&buffer[..len]),
        }
    }
}

/// Tests that take the library a minute run on demand.
fn slow() -> Option<String> {
    env::var_os("STARLING_SLOW").is_none().then(|| "slow: set STARLING_SLOW to run it".to_owned())
}

#[test]
fn a_default_blob_of_go_is_read() {
    skip_unless!(requires::go());
    read_of_go(trees::every_node(), &[]);
}

#[test]
fn small_chunks_of_go_are_read() {
    skip_unless!(requires::go());
    read_of_go(trees::every_node(), &["-chunk-size=65536", "-level=1"]);
}

#[test]
fn packed_members_of_go_are_read() {
    skip_unless!(requires::go());
    read_of_go(trees::every_node(), &["-min-chunk-size=50000", "-level=9"]);
    read_of_go(trees::every_node(), &["-min-chunk-size=50000", "-chunk-size=20000"]);
}

#[test]
fn prioritized_files_of_go_are_read() {
    skip_unless!(requires::go());
    read_of_go(trees::every_node(), &["-prioritized=dir/plain,big,dir/one again,link"]);
}

#[test]
fn hard_links_of_go_are_read() {
    skip_unless!(requires::go());
    read_of_go(trees::hard_links(), &[]);
    read_of_go(trees::hard_links(), &["-min-chunk-size=50000"]);
}

/// The library makes a compressor for each member, which takes it 0.4 ms: files share members here.
#[test]
fn a_hundred_thousand_files_of_go_are_read() {
    skip_unless!(requires::go());
    read_of_go(trees::many_files(), &["-level=1", "-min-chunk-size=2000"]);
}

#[test]
fn a_hundred_thousand_members_of_go_are_read() {
    skip_unless!(requires::go(), slow());
    read_of_go(trees::many_files(), &["-level=1"]);
}

#[test]
fn go_verifies_our_blobs() {
    skip_unless!(requires::go());
    let level = |level| Level::new(level).unwrap();
    let small = NonZeroU64::new(65_536).unwrap();
    let prioritized = ["dir/plain", "big", "dir/one again"].map(str::to_owned).to_vec();
    verified_by_go(
        trees::every_node(),
        &[
            Options::default(),
            Options { chunk_size: small, level: level(1), ..Options::default() },
            Options { pack_size: 1 << 20, level: level(9), ..Options::default() },
            Options { pack_size: 50_000, chunk_size: small, level: level(2), ..Options::default() },
            Options { prioritized: prioritized.clone(), level: level(3), ..Options::default() },
            Options { prioritized, pack_size: 1 << 20, level: level(4), ..Options::default() },
        ],
    );
}

#[test]
fn go_verifies_hard_links_of_ours() {
    skip_unless!(requires::go());
    let packed = Options { pack_size: 1 << 20, ..Options::default() };
    verified_by_go(trees::hard_links(), &[Options::default(), packed]);
}

#[test]
fn go_refuses_our_blob_with_another_digest() {
    skip_unless!(requires::go());
    let (tar, _) = trees::hard_links().finish();
    let built = write::build(&tar, &Options::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let blob = dir.path().join("layer.esgz");
    fs::write(&blob, &built.blob).unwrap();
    let wrong = estargz::Digest::of(b"something else").to_string();
    assert_fails(&blob, &wrong, "digest");
}

#[track_caller]
fn assert_fails(blob: &Path, toc_digest: &str, message: &str) {
    let error = format!("{:#}", golden::verify(blob, toc_digest).unwrap_err());
    assert!(error.contains(message), "{error}");
}
