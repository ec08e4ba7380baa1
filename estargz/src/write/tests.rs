//! Blobs that the writer makes, read back with other implementations of gzip, tar and JSON.

use std::{collections::BTreeMap, io::Read, num::NonZeroU64};

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::Sha256;

/// An archive made with the tar crate.
#[derive(Default)]
pub(super) struct Archive(Vec<u8>);

impl Archive {
    pub(super) fn add(mut self, kind: char, name: &str, link: &str, data: &[u8]) -> Self {
        self.push(kind, name, link, data, |_| ());
        self
    }

    pub(super) fn file(self, name: &str, data: &[u8]) -> Self {
        self.add('0', name, "", data)
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.add('5', name, "", b"")
    }

    pub(super) fn link(self, name: &str, target: &str) -> Self {
        self.add('1', name, target, b"")
    }

    pub(super) fn xattrs(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut builder = ::tar::Builder::new(&mut self.0);
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        std::mem::forget(builder);
        self
    }

    fn push(
        &mut self,
        kind: char,
        name: &str,
        link: &str,
        data: &[u8],
        set: impl FnOnce(&mut ::tar::Header),
    ) {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::new(kind as u8));
        header.set_size(data.len() as u64);
        header.set_mode(if kind == '5' { 0o755 } else { 0o644 });
        header.set_mtime(1_700_000_000);
        header.set_uid(7);
        header.set_gid(8);
        header.set_username("user").unwrap();
        set(&mut header);
        let mut builder = ::tar::Builder::new(&mut self.0);
        if link.is_empty() {
            builder.append_data(&mut header, name, data).unwrap();
        } else {
            builder.append_link(&mut header, name, link).unwrap();
        }
        // Dropping the builder would end the archive.
        std::mem::forget(builder);
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// A blob taken apart.
pub(super) struct Parsed {
    pub(super) blob: Vec<u8>,
    /// The uncompressed archive.
    pub(super) tar: Vec<u8>,
    pub(super) toc_offset: u64,
    pub(super) toc: Vec<Value>,
    toc_digest: Digest,
}

pub(super) fn build_and_parse(tar: &[u8], options: &Options) -> Parsed {
    let built = build(tar, options).unwrap();
    let parsed = parse(built.blob);
    let mut diff = Sha256::new();
    diff.update(&parsed.tar);
    assert_eq!(built.diff_id, diff.finish());
    assert_eq!(built.uncompressed_size, parsed.tar.len() as u64);
    assert_eq!(built.toc_digest, parsed.toc_digest);
    check_chunks(&parsed);
    parsed
}

fn parse(blob: Vec<u8>) -> Parsed {
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(blob.as_slice()).read_to_end(&mut tar).unwrap();
    let footer = &blob[blob.len() - 51..];
    assert_eq!(&footer[..4], [0x1f, 0x8b, 8, 4]);
    assert_eq!(&footer[32..38], b"STARGZ");
    let toc_offset = u64::from_str_radix(std::str::from_utf8(&footer[16..32]).unwrap(), 16).unwrap();
    let toc = inflate(&blob, toc_offset);
    let mut archive = ::tar::Archive::new(toc.as_slice());
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap().to_str(), Some(TOC_NAME));
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["version"], 1);
    let toc = json["entries"].as_array().unwrap().clone();
    Parsed { blob, tar, toc_offset, toc, toc_digest: Digest::of(&bytes) }
}

/// What the one gzip member at `offset` holds.
fn inflate(blob: &[u8], offset: u64) -> Vec<u8> {
    let mut data = Vec::new();
    flate2::read::GzDecoder::new(&blob[offset as usize..]).read_to_end(&mut data).unwrap();
    data
}

/// Reads each file through the table of contents and compares it with what the archive holds.
fn check_chunks(parsed: &Parsed) {
    let mut files: BTreeMap<String, (Vec<u8>, Digest)> = BTreeMap::new();
    let (mut name, mut size) = (String::new(), 0);
    for entry in &parsed.toc {
        let number = |key: &str| entry[key].as_u64().unwrap_or(0);
        let digest = |key: &str| entry[key].as_str().unwrap().parse().unwrap();
        if entry["type"] == "reg" {
            name = entry["name"].as_str().unwrap().to_owned();
            size = number("size");
            files.insert(name.clone(), (Vec::new(), digest("digest")));
        }
        if entry["type"] == "chunk" || (entry["type"] == "reg" && size > 0) {
            let content = &mut files.get_mut(&name).unwrap().0;
            assert_eq!(content.len() as u64, number("chunkOffset"));
            let len =
                if number("chunkSize") == 0 { size - number("chunkOffset") } else { number("chunkSize") };
            assert!(number("offset") < parsed.toc_offset);
            let member = inflate(&parsed.blob, number("offset"));
            let chunk = &member[number("innerOffset") as usize..][..len as usize];
            assert_eq!(Digest::of(chunk), digest("chunkDigest"));
            content.extend_from_slice(chunk);
        }
    }
    let mut archive = ::tar::Archive::new(parsed.tar.as_slice());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        if entry.header().entry_type().is_file() && name != TOC_NAME {
            let mut expected = Vec::new();
            entry.read_to_end(&mut expected).unwrap();
            let (content, digest) = files.remove(&name).unwrap();
            assert!(content == expected, "{name}");
            assert_eq!(Digest::of(&content), digest, "{name}");
        }
    }
    assert!(files.is_empty(), "files that only the table knows: {:?}", files.keys());
}

impl Parsed {
    pub(super) fn names(&self) -> Vec<&str> {
        self.toc
            .iter()
            .filter(|entry| entry["type"] != "chunk")
            .map(|entry| entry["name"].as_str().unwrap())
            .collect()
    }

    pub(super) fn entry(&self, name: &str) -> &Value {
        self.toc.iter().find(|entry| entry["name"] == name).unwrap()
    }
}

/// Makes every block that looks like a header one whose checksum is right.
fn set_check_sums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}

fn options(chunk_size: u64, pack_size: u64) -> Options {
    Options {
        chunk_size: NonZeroU64::new(chunk_size).unwrap(),
        pack_size,
        level: Level::new(1).unwrap(),
        ..Options::default()
    }
}

#[test]
fn describes_every_kind_of_node() {
    let tar = Archive::default()
        .dir("dir/")
        .xattrs(&[("SCHILY.xattr.security.capability", b"\0\xff\x01"), ("SCHILY.xattr.user.x", b"y")])
        .file("dir/file", b"hello")
        .file("empty", b"")
        .link("dir/hard", "dir/file")
        .add('2', "soft", "dir/file", b"")
        .add('6', "pipe", "", b"")
        .add('3', "char", "", b"")
        .file(".wh.gone", b"")
        .end();
    let parsed = build_and_parse(&tar, &Options::default());
    let expected =
        [NO_PREFETCH_LANDMARK, "dir/", "dir/file", "empty", "dir/hard", "soft", "pipe", "char", ".wh.gone"];
    assert_eq!(parsed.names(), expected);
    let file = parsed.entry("dir/file");
    assert_eq!(file["size"], 5);
    assert_eq!(file["modtime"], "2023-11-14T22:13:20Z");
    assert_eq!((&file["uid"], &file["gid"], &file["mode"]), (&7.into(), &8.into(), &0o644.into()));
    assert_eq!(file["xattrs"]["security.capability"], STANDARD.encode(b"\0\xff\x01"));
    assert_eq!(parsed.entry("dir/")["userName"], "user");
    assert_eq!(file["userName"], Value::Null, "a name is given once");
    assert_eq!(parsed.entry("empty")["offset"], Value::Null);
    assert_eq!(parsed.entry("dir/hard")["linkName"], "dir/file");
    assert_eq!(parsed.entry("soft")["linkName"], "dir/file");
    let kinds: Vec<_> = expected.iter().map(|name| parsed.entry(name)["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["reg", "dir", "reg", "reg", "hardlink", "symlink", "fifo", "char", "reg"]);
}

#[test]
fn cuts_long_files_into_chunks() {
    let data: Vec<u8> = (0..2500u32).flat_map(u32::to_le_bytes).collect();
    let tar = Archive::default().file("long", &data).file("exact", &data[..4000]).end();
    let parsed = build_and_parse(&tar, &options(4000, 0));
    let chunks: Vec<_> = parsed.toc.iter().map(|entry| entry["chunkSize"].as_u64()).collect();
    assert_eq!(chunks, [None, Some(4000), Some(4000), None, Some(4000)]);
    assert_eq!(parsed.toc[3]["type"], "chunk");
    assert_eq!(parsed.toc[3]["chunkOffset"], 8000);
}

#[test]
fn packs_small_files_into_one_member() {
    let mut archive = Archive::default();
    for at in 0..50 {
        archive = archive.file(&format!("f{at}"), format!("content of file {at}").as_bytes());
    }
    let tar = archive.end();
    let parsed = build_and_parse(&tar, &options(4 << 20, 10_000));
    let offsets: std::collections::BTreeSet<_> =
        parsed.toc.iter().map(|entry| entry["offset"].as_u64()).collect();
    // A file takes two blocks, so ten of them fill a member; the landmark is followed by nothing.
    assert_eq!(offsets.len(), 6, "{offsets:?}");
    let landmark = parsed.entry(NO_PREFETCH_LANDMARK);
    assert_eq!(landmark["innerOffset"], Value::Null);
    let plain = build_and_parse(&tar, &options(4 << 20, 0));
    assert!(parsed.blob.len() < plain.blob.len());
}

#[test]
fn cuts_a_long_run_of_headers() {
    let mut archive = Archive::default();
    for at in 0..5000 {
        archive = archive.dir(&format!("d{at}/"));
    }
    let tar = archive.file("last", b"x").end();
    let plan = Plan::read(tar.as_slice(), &Options::default()).unwrap();
    assert!(plan.pieces().all(|piece| piece.len() < 2 << 20));
    assert_eq!(build_and_parse(&tar, &Options::default()).names().len(), 5002);
}

#[test]
fn an_empty_archive_has_a_landmark_only() {
    for tar in [Archive::default().end(), Vec::new()] {
        assert_eq!(build_and_parse(&tar, &Options::default()).names(), [NO_PREFETCH_LANDMARK]);
    }
}

#[test]
fn a_blob_made_of_a_blob_is_the_same() {
    let tar = Archive::default().dir("a/").file("a/b", b"x").end();
    let once = build_and_parse(&tar, &Options::default());
    let twice = build_and_parse(&once.tar, &Options::default());
    assert!(once.blob == twice.blob);
}

#[test]
fn refuses_pieces_of_another_plan() {
    let tar = Archive::default().file("a", b"x").end();
    let plan = Plan::read(tar.as_slice(), &Options::default()).unwrap();
    let mut compressor = Compressor::new(Level::default());
    assert!(matches!(Assembler::new(&plan).finish(&mut compressor), Err(AssembleError::Pieces)));
    let piece = plan.pieces().next().unwrap();
    assert!(matches!(compressor.compress(&piece, b"short"), Err(CompressError::Length { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tree_comes_back(
        files in proptest::collection::vec(("[a-c]{1,3}(/[a-c]{1,3}){0,2}", proptest::collection::vec(any::<u8>(), 0..3000)), 0..20),
        chunk_size in 1u64..2000,
        pack_size in 0u64..8000,
    ) {
        // A name may come twice, also as a file and as the directory above another.
        let mut expected: BTreeMap<String, &[u8]> = BTreeMap::new();
        let mut archive = Archive::default();
        for (name, data) in &files {
            if expected.keys().any(|other| name.starts_with(&format!("{other}/"))) {
                continue;
            }
            expected.retain(|other, _| !other.starts_with(&format!("{name}/")));
            expected.insert(name.clone(), data);
            archive = archive.file(name, data);
        }
        let parsed = build_and_parse(&archive.end(), &options(chunk_size, pack_size));
        let mut names = parsed.names();
        names.retain(|name| *name != NO_PREFETCH_LANDMARK);
        names.sort_unstable();
        prop_assert_eq!(names, expected.keys().map(String::as_str).collect::<Vec<_>>());
        for (name, data) in expected {
            let digest = Digest::of(data).to_string();
            prop_assert_eq!(&parsed.entry(&name)["digest"], &Value::from(digest));
        }
    }

    #[test]
    fn a_changed_archive_is_a_layer_or_an_error(changes in proptest::collection::vec((0usize..9000, any::<u8>()), 1..12)) {
        let mut tar = Archive::default()
            .dir("d/")
            .xattrs(&[("SCHILY.xattr.user.x", b"y"), ("GNU.sparse.map", b"0,1,3,2"), ("GNU.sparse.size", b"10")])
            .file("d/sparse", b"abc")
            .file(&"long/".repeat(50), b"")
            .link("d/link", "d/sparse")
            .add('S', "old sparse", "", &[1; 600])
            .file("d/file", &[7; 700])
            .end();
        for (at, byte) in changes {
            let at = at % tar.len();
            tar[at] = byte;
        }
        set_check_sums(&mut tar);
        if let Ok(plan) = Plan::read(tar.as_slice(), &options(100, 0))
            && plan.content_bytes() < 1 << 20
        {
            // A blob holds an archive again, and nothing in it may mean something else the second time.
            let once = build(&tar, &options(100, 0)).unwrap();
            let twice = build(&parse(once.blob.clone()).tar, &options(100, 0)).unwrap();
            prop_assert_eq!(once.toc_digest, twice.toc_digest);
            prop_assert!(once.blob == twice.blob);
        }
    }

    #[test]
    fn any_bytes_are_a_layer_or_an_error(mut data in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = build(&data, &options(100, 0));
        data.resize(data.len().next_multiple_of(512), 0);
        let _ = build(&data, &options(100, 0));
    }
}
