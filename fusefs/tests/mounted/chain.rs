//! Chains of layers: one tree, which is the one that overlayfs makes of the same layers.

use std::{
    collections::BTreeMap,
    fs::{File, FileType},
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use estargz::{Kind, NodeId, write::Options};
use fusefs::{AttachError, Chain};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    blob::BlobLayer,
    directories::{Stream, all},
    fixture::{connect, slot},
    handles,
    memory::MemoryLayer,
};

/// A change that a layer makes at a path.
#[derive(Debug, Clone)]
enum Change {
    File(u8),
    Dir(u16),
    Opaque(u16),
    Link,
    Whiteout,
}

/// What is at a path, to whoever looks.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    kind: FileType,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    /// Content or target.
    bytes: Vec<u8>,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// 0 for directories, of which overlayfs counts otherwise.
    links: u64,
}

type Seen = BTreeMap<PathBuf, Look>;

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any::<u8>().prop_map(Change::File),
        4 => (0o700..0o777_u16).prop_map(Change::Dir),
        1 => (0o700..0o777_u16).prop_map(Change::Opaque),
        1 => Just(Change::Link),
        2 => Just(Change::Whiteout),
    ]
}

/// Few names, so that layers meet.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]", 1..5).prop_map(|names| names.join("/"))
}

fn layer(changes: &BTreeMap<String, Change>) -> MemoryLayer {
    let mut layer = MemoryLayer::new();
    for (path, change) in changes {
        // Below something that is no directory nothing can be; the map has parents first.
        let above = Path::new(path).ancestors().skip(1).filter_map(|above| changes.get(above.to_str()?));
        if above.into_iter().any(|change| !matches!(change, Change::Dir(_) | Change::Opaque(_))) {
            continue;
        }
        match change {
            Change::File(byte) => layer
                .text(path, &format!("{byte}"))
                .xattr(path, "user.byte", &[*byte])
                .change(path, |at| (at.uid, at.mtime) = (u32::from(*byte), (i64::from(*byte), 7))),
            Change::Dir(perm) | Change::Opaque(perm) => {
                layer.dir(path, *perm).xattr(path, "user.perm", &perm.to_le_bytes());
                layer.change(path, |at| (at.gid, at.mtime) = (u32::from(*perm), (i64::from(*perm), 0)))
            }
            Change::Link => layer.link(path, "a/b"),
            Change::Whiteout => layer.device(path, Kind::Char, (0, 0)),
        };
        if matches!(change, Change::Opaque(_)) {
            layer.change(path, |attributes| attributes.opaque = true);
        }
    }
    layer
}

/// Takes in what is below a directory. What is listed and cannot be looked up is passed over: overlayfs lists whiteouts as
/// they are in directories that one layer has alone.
fn walk(root: &Path, below: &Path, seen: &mut Seen) {
    for entry in root.join(below).read_dir().unwrap() {
        let at = below.join(entry.unwrap().file_name());
        let path = root.join(&at);
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let file_type = metadata.file_type();
        let bytes = match () {
            () if file_type.is_file() => std::fs::read(&path).unwrap(),
            () if file_type.is_symlink() => path.read_link().unwrap().into_os_string().into_encoded_bytes(),
            () => Vec::new(),
        };
        let value = |name: std::ffi::OsString| {
            xattr::get(&path, &name).unwrap().map(|value| (name.into_string().unwrap(), value))
        };
        let look = Look {
            kind: file_type,
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            bytes,
            xattrs: xattr::list(&path).unwrap().filter_map(value).collect(),
            links: if file_type.is_dir() { 0 } else { metadata.nlink() },
        };
        assert!(seen.insert(at.clone(), look).is_none());
        if file_type.is_dir() {
            walk(root, &at, seen);
        }
    }
}

fn seen(root: &Path) -> Seen {
    let mut seen = Seen::new();
    walk(root, Path::new(""), &mut seen);
    seen
}

#[test]
fn a_chain_is_what_overlayfs_makes_of_its_layers() {
    let Some(fixture) = connect() else { return };
    let fixture = std::cell::RefCell::new((fixture, 1));
    let layers = prop::collection::vec(prop::collection::btree_map(path(), change(), 0..25), 2..7);
    let mut runner = TestRunner::new(Config { failure_persistence: None, cases: 64, ..Config::default() });
    runner
        .run(&layers, |layers| {
            let (fixture, number) = &mut *fixture.borrow_mut();
            let (chain, paths) = fixture.attach_chain(*number, layers.iter().map(layer).collect());
            *number += 10;
            // The lowest of an overlay's layers shows its whiteouts, where nothing is hidden by them: below it is nothing.
            let empty = fixture.dir.path().join("empty");
            std::fs::create_dir_all(&empty).unwrap();
            let lower: Vec<_> = paths.iter().map(PathBuf::as_path).chain([empty.as_path()]).collect();
            let overlay = fixture.overlay(&lower, false);
            let found = seen(&chain);
            prop_assert!(found.values().all(|look| !look.kind.is_char_device()), "a whiteout shows");
            prop_assert_eq!(found, seen(&overlay));
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_directory_of_many_layers_is_listed_whole_and_each_name_once() {
    let Some(fixture) = connect() else { return };
    // More than one answer holds, every third name in two layers.
    let layers = (0..5_u32).map(|number| {
        let mut layer = MemoryLayer::new();
        for name in (0..6000_u32).filter(|name| name % 5 == number || (name % 3 == 0 && name % 4 == number)) {
            layer.text(&format!("dir/{name:05}"), &number.to_string());
        }
        layer
    });
    let (chain, _) = fixture.attach_chain(1, layers.collect());
    let names = |path: &Path| -> Vec<String> {
        path.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let expected: Vec<_> = (0..6000).map(|name| format!("{name:05}")).collect();
    assert_eq!(names(&chain.join("dir")), expected);
    // A position leads to what follows it, whoever comes from wherever.
    let path = chain.join("dir");
    let first = all(&mut Stream::open(&path));
    let mut stream = Stream::open(&path);
    for at in [6000, 0, 1, 2, 700, 17, 3001, 6001] {
        stream.seek(first[at].3);
        assert_eq!(all(&mut stream), first[at + 1..], "after entry {at}");
    }
    assert_eq!(std::fs::read_to_string(chain.join("dir/00009")).unwrap(), "1");
}

#[test]
fn files_are_the_layers_inodes_and_directories_are_not() {
    let Some(fixture) = connect() else { return };
    let mut layer = MemoryLayer::new();
    layer.text("alone/file", "1").text("both/file", "1");
    let mut above = MemoryLayer::new();
    above.text("both/more", "2");
    let (chain, paths) = fixture.attach_chain(1, vec![above, layer]);
    let number = |path: PathBuf| path.metadata().unwrap().ino();
    assert_eq!(number(chain.join("alone/file")), number(paths[1].join("alone/file")));
    assert_eq!(number(chain.join("both/more")), number(paths[0].join("both/more")));
    assert_ne!(number(chain.join("alone")), number(paths[1].join("alone")));
    assert_eq!(number(chain.join("alone/..")), number(chain.clone()));
    assert!(chain.join("both/nothing").symlink_metadata().is_err());
}

#[test]
fn a_directory_is_found_by_its_number_where_nobody_looked_before() {
    let Some(fixture) = connect() else { return };
    let layers = || {
        let mut below = MemoryLayer::new();
        below.text("a/b/c/below", "1").text("a/alone/x/y", "1").text("a/hidden/z", "1");
        let mut above = MemoryLayer::new();
        above.text("a/b/c/above", "2").device("a/hidden", Kind::Char, (0, 0));
        vec![above, below]
    };
    let (seen, paths) = fixture.attach_chain(1, layers());
    // The same layers again, as a successor has them, who is asked by number for what the first one gave out.
    let Some(successor) = connect() else { return };
    let (chain, _) = successor.attach_chain(1, layers());
    let mount = File::open(&chain).unwrap();
    let node = |path: &str| NodeId::new(seen.join(path).metadata().unwrap().ino() as u32).unwrap();
    for (path, names) in [("a/alone/x", &["y"][..]), ("a/b/c", &["above", "below"]), ("a", &["alone", "b"])] {
        let held = handles::open(&mount, 1, node(path)).unwrap();
        let place = std::fs::read_link(format!("/proc/self/fd/{}", held.as_raw_fd())).unwrap();
        assert_eq!(place, chain.join(path));
        let found = place.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(found.collect::<Vec<_>>(), names, "{path}");
    }
    // No number was ever given to what is hidden: the layer's own, or one that a chain might have.
    let hidden = paths[1].join("a/hidden").metadata().unwrap().ino() as u32;
    for number in [hidden | 1 << 24, hidden | 1 << 31 | 1 << 24, 77 << 24 | 1] {
        let error = handles::open(&mount, 1, NodeId::new(number).unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{number:#x}");
    }
}

#[test]
fn a_chain_has_at_least_one_layer_and_not_too_many() {
    let layer = Arc::new(MemoryLayer::new());
    for count in [0, 129] {
        let layers = (2..).map(slot).zip(std::iter::repeat_n(Arc::clone(&layer), count));
        let refused = Chain::new(layers);
        assert!(matches!(refused, Err(AttachError::ChainLength { most: 128 })), "{count}");
    }
}

#[test]
fn more_whiteouts_in_a_row_than_any_image_has_are_an_error_and_take_no_time() {
    let Some(fixture) = connect() else { return };
    let layer = |names: &mut dyn Iterator<Item = String>| {
        let mut archive = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            archive.append_data(&mut header, name, std::io::empty()).unwrap();
        }
        BlobLayer::of_tar(&archive.into_inner().unwrap(), &Options::default())
    };
    let few = ["few/.wh.a", "few/z"].map(str::to_owned);
    let above = layer(&mut (0..100_100).map(|name| format!("dir/.wh.{name:06}")).chain(few));
    let below = layer(&mut ["dir/zzz", "few/a"].map(str::to_owned).into_iter());
    let (chain, _) = fixture.attach_chain(1, vec![above, below]);
    let listed = |name: &str| -> std::io::Result<Vec<_>> {
        chain.join(name).read_dir()?.map(|entry| Ok(entry?.file_name())).collect()
    };
    let began = std::time::Instant::now();
    assert_eq!(listed("dir").unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(listed("few").unwrap(), ["z"]);
    assert!(chain.join("dir/zzz").is_file());
}
