//! Listings: names, kinds, cookies.

use std::{collections::BTreeSet, ffi::CString, os::unix::ffi::OsStrExt, path::Path};

use estargz::Kind;

use crate::{
    fixture::{inside, mounted, slot},
    memory::MemoryLayer,
};

fn big(count: usize) -> MemoryLayer {
    let mut layer = MemoryLayer::new();
    (0..count).for_each(|i| {
        layer.text(&format!("dir/file with a longish name {i:06}"), "x");
    });
    layer.link("mixed/link", "x").dir("mixed/dir", 0o755).text("mixed/file", "");
    layer.device("mixed/char", Kind::Char, (0, 0)).device("mixed/block", Kind::Block, (8, 1));
    layer.add("mixed/fifo", Kind::Fifo, 0o600);
    layer
}

/// A directory stream as libc has it, for std hides positions.
pub(crate) struct Stream(*mut libc::DIR);

impl Stream {
    pub(crate) fn open(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the string ends with a NUL.
        let stream = unsafe { libc::opendir(path.as_ptr()) };
        assert!(!stream.is_null());
        Self(stream)
    }

    /// Name, kind, inode and the position after it.
    fn next(&mut self) -> Option<(String, u8, u64, i64)> {
        // SAFETY: the stream is open until drop, and the entry is read before the next call.
        unsafe {
            let entry = libc::readdir64(self.0).as_ref()?;
            let name = std::ffi::CStr::from_ptr(entry.d_name.as_ptr()).to_str().unwrap().to_owned();
            Some((name, entry.d_type, entry.d_ino, entry.d_off))
        }
    }

    pub(crate) fn seek(&mut self, position: i64) {
        // SAFETY: the stream is open until drop.
        unsafe { libc::seekdir(self.0, position) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: opened in `open`, closed once.
        unsafe { libc::closedir(self.0) };
    }
}

pub(crate) fn all(stream: &mut Stream) -> Vec<(String, u8, u64, i64)> {
    std::iter::from_fn(|| stream.next()).collect()
}

#[test]
fn a_listing_has_every_name_once_with_its_kind_and_inode() {
    let Some((_fixture, path)) = mounted(big(5000)) else { return };
    let entries = all(&mut Stream::open(&path.join("dir")));
    let names: BTreeSet<_> = entries.iter().map(|entry| &entry.0).collect();
    assert_eq!((entries.len(), names.len()), (5002, 5002));
    assert_eq!((entries[0].0.as_str(), entries[1].0.as_str()), (".", ".."));

    let mixed = all(&mut Stream::open(&path.join("mixed")));
    let kind = |name: &str| mixed.iter().find(|entry| entry.0 == name).unwrap().1;
    assert_eq!(kind("."), libc::DT_DIR);
    assert_eq!(kind("dir"), libc::DT_DIR);
    assert_eq!(kind("file"), libc::DT_REG);
    assert_eq!(kind("link"), libc::DT_LNK);
    assert_eq!(kind("char"), libc::DT_CHR);
    assert_eq!(kind("block"), libc::DT_BLK);
    assert_eq!(kind("fifo"), libc::DT_FIFO);
    for (name, _, ino, _) in mixed {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(path.join("mixed").join(&name).symlink_metadata().unwrap().ino(), ino, "{name}");
    }
}

#[test]
fn positions_are_stable_in_every_stream() {
    let Some((_fixture, path)) = mounted(big(3000)) else { return };
    let path = path.join("dir");
    let first = all(&mut Stream::open(&path));
    assert_eq!(all(&mut Stream::open(&path)), first);
    let mut stream = Stream::open(&path);
    for at in [2999, 0, 1, 2, 1500, 17, 3000, 3001] {
        stream.seek(first[at].3);
        let rest: Vec<_> = all(&mut stream);
        assert_eq!(rest, first[at + 1..], "after entry {at}");
    }
    stream.seek(0);
    assert_eq!(all(&mut stream), first);
}

#[test]
fn a_listing_brings_the_attributes_and_is_kept() {
    let Some((fixture, path)) = mounted(big(2000)) else { return };
    let (_held, path) = inside(&path);
    let count = |path: &Path| {
        path.read_dir().unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    assert_eq!(count(&path.join("dir")), 2000);
    let before = fixture.connection.counters();
    assert!(before.readdirpluses > 0 && before.readdirs == 0);
    assert!(before.lookups < 10, "{before:?}");
    for _ in 0..3 {
        assert_eq!(count(&path.join("dir")), 2000);
    }
    assert_eq!(fixture.connection.counters(), before, "no message for a warm listing");
}

#[test]
fn the_root_lists_slots_in_pieces() {
    let Some((fixture, _)) = mounted(MemoryLayer::new()) else { return };
    for number in 2..=1200 {
        fixture.attach(number * 3, MemoryLayer::new());
    }
    let root = fixture.connection.mountpoint();
    let entries = all(&mut Stream::open(root));
    assert_eq!(entries.len(), 1202);
    let mut stream = Stream::open(root);
    stream.seek(entries[600].3);
    fixture.connection.detach(slot(3 * 1200));
    fixture.connection.detach(slot(6));
    let rest: Vec<_> = all(&mut stream).into_iter().map(|entry| entry.0).collect();
    let expected: Vec<_> = entries[601..1201].iter().map(|entry| entry.0.clone()).collect();
    // Whether a stream that is open shows what went meanwhile is open, as everywhere.
    assert!(rest.starts_with(&expected) && rest.len() <= expected.len() + 1);
}
