//! A file past 4 GiB.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use tar::{EntryType, Header};
use testkit::{golden, requires, skip_unless};

use crate::{
    layer::{Decoder, Layer, assert_same, listed, mounted},
    slow,
};

const LEN: u64 = 5 << 30;

/// An archive with one file of nothing but zeros, which takes no space on disk.
fn sparse_archive(path: &Path) {
    let mut header = Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o640);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(3);
    header.set_size(LEN);
    header.set_cksum();
    let mut file = File::create(path).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    // Two empty blocks end an archive.
    file.set_len(512 + LEN + 1024).unwrap();
}

#[test]
fn a_file_of_five_gigabytes_is_read() {
    skip_unless!(requires::go(), slow());
    let dir = tempfile::tempdir().unwrap();
    let (tar, blob) = (dir.path().join("layer.tar"), dir.path().join("layer.esgz"));
    sparse_archive(&tar);
    let built = golden::build(&tar, &blob, &["-level=1"]).unwrap();
    let list = listed(golden::verify(&blob, &built.toc_digest).unwrap());
    assert_eq!((list["zeros"].size, list["zeros"].mode, list["zeros"].mtime), (LEN, 0o640, 3));
    let blob = fs::read(&blob).unwrap();
    let layer = Layer::open(&blob, Decoder::Stream);
    assert_eq!(layer.toc_digest.to_string(), built.toc_digest);
    assert_same(&layer.nodes(), &mounted(list));
}
