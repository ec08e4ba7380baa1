//! Random trees: what is found by walking the mount is what was put in.

use std::{
    collections::BTreeMap,
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt},
    path::Path,
};

use estargz::Kind;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    fixture::{connect, slot},
    memory::{Content, MemoryLayer},
};

/// A node as it was put in, and as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    kind: Kind,
    perm: u16,
    owner: (u32, u32),
    mtime: (i64, u32),
    /// Content or target.
    bytes: Vec<u8>,
    rdev: (u32, u32),
    xattrs: BTreeMap<String, Vec<u8>>,
}

type Tree = BTreeMap<String, Model>;

fn node() -> impl Strategy<Value = Model> {
    let kind = prop_oneof![
        3 => Just(Kind::Dir),
        5 => Just(Kind::Reg),
        1 => Just(Kind::Symlink),
        1 => Just(Kind::Char),
        1 => Just(Kind::Block),
        1 => Just(Kind::Fifo),
    ];
    let bytes = prop_oneof![Just(0..1_usize), Just(1..200), Just(4000..4200), Just(100_000..140_000)]
        .prop_flat_map(|sizes| prop::collection::vec(any::<u8>(), sizes));
    let xattrs =
        prop::collection::btree_map("user\\.[a-z]{1,20}", prop::collection::vec(any::<u8>(), 0..50), 0..3);
    let owner =
        (any::<u32>(), any::<u32>()).prop_map(|(uid, gid)| (uid.min(u32::MAX - 1), gid.min(u32::MAX - 1)));
    // ext4's and the kernel's own range of times is smaller than the format's.
    let mtime = (-(1_i64 << 40)..1 << 40, 0..1_000_000_000_u32);
    let rdev = (0..0x1000_u32, 0..0x10_0000_u32);
    (kind, 0..0o10000_u16, owner, mtime, bytes, rdev, xattrs).prop_map(
        |(kind, perm, owner, mtime, bytes, rdev, xattrs)| {
            let perm = if kind == Kind::Symlink { 0o777 } else { perm };
            let bytes = match kind {
                Kind::Reg => bytes,
                Kind::Symlink => bytes.iter().take(300).map(|byte| b'a' + byte % 26).chain([b'x']).collect(),
                _ => Vec::new(),
            };
            let rdev = if matches!(kind, Kind::Char | Kind::Block) { rdev } else { (0, 0) };
            let xattrs = if matches!(kind, Kind::Dir | Kind::Reg) { xattrs } else { BTreeMap::new() };
            Model { kind, perm, owner, mtime, bytes, rdev, xattrs }
        },
    )
}

/// Puts each node below the directory that its number chooses.
fn tree(nodes: Vec<(prop::sample::Index, String, Model)>) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![String::new()];
    for (dir, name, node) in nodes {
        let path = format!("{}{name}", dirs[dir.index(dirs.len())]);
        if path.len() > 1000 || tree.contains_key(&path) {
            continue;
        }
        if node.kind == Kind::Dir {
            dirs.push(format!("{path}/"));
        }
        tree.insert(path, node);
    }
    tree
}

fn layer(tree: &Tree) -> MemoryLayer {
    let mut layer = MemoryLayer::new();
    for (path, node) in tree {
        match node.kind {
            Kind::Dir => layer.dir(path, node.perm),
            Kind::Reg => layer.file(path, node.perm, Content::Bytes(node.bytes.clone())),
            Kind::Symlink => layer.link(path, std::str::from_utf8(&node.bytes).unwrap()),
            kind => {
                layer.add(path, kind, node.perm);
                &mut layer
            }
        };
        layer.change(path, |attributes| {
            (attributes.uid, attributes.gid) = node.owner;
            (attributes.mtime, attributes.rdev) = (node.mtime, node.rdev);
        });
        for (name, value) in &node.xattrs {
            layer.xattr(path, name, value);
        }
    }
    layer
}

fn walk(root: &Path, below: &str, found: &mut Tree) {
    for entry in root.join(below).read_dir().unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}{}", entry.file_name().to_str().unwrap());
        let node = read(&entry.path(), entry.file_type().unwrap());
        if node.kind == Kind::Dir {
            walk(root, &format!("{path}/"), found);
        }
        assert!(found.insert(path.clone(), node).is_none(), "{path} is listed twice");
    }
}

fn read(path: &Path, listed: std::fs::FileType) -> Model {
    let metadata = path.symlink_metadata().unwrap();
    let file_type = metadata.file_type();
    assert_eq!(file_type, listed, "{}", path.display());
    let kind = match file_type {
        _ if file_type.is_dir() => Kind::Dir,
        _ if file_type.is_file() => Kind::Reg,
        _ if file_type.is_symlink() => Kind::Symlink,
        _ if file_type.is_char_device() => Kind::Char,
        _ if file_type.is_block_device() => Kind::Block,
        _ => Kind::Fifo,
    };
    let bytes = match kind {
        Kind::Reg => std::fs::read(path).unwrap(),
        Kind::Symlink => path.read_link().unwrap().into_os_string().into_encoded_bytes(),
        _ => Vec::new(),
    };
    if !matches!(kind, Kind::Dir) {
        assert_eq!(metadata.len(), bytes.len() as u64);
    }
    let xattrs = xattr::list(path).unwrap().map(|name| {
        let value = xattr::get(path, &name).unwrap().unwrap();
        (name.into_string().unwrap(), value)
    });
    Model {
        kind,
        perm: (metadata.mode() & 0o7777) as u16,
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec() as u32),
        rdev: (nix::libc::major(metadata.rdev()), nix::libc::minor(metadata.rdev())),
        xattrs: if kind == Kind::Symlink { BTreeMap::new() } else { xattrs.collect() },
        bytes,
    }
}

/// Reads pieces at random offsets and compares them with the file.
fn read_pieces(path: &Path, bytes: &[u8], offsets: &[(u32, u16)]) {
    let file = std::fs::File::open(path).unwrap();
    for &(offset, len) in offsets {
        let offset = (offset as usize).checked_rem(bytes.len() + 10).unwrap_or(0);
        let mut buf = vec![0; len.into()];
        let got = file.read_at(&mut buf, offset as u64).unwrap();
        let end = bytes.len().min(offset + buf.len());
        assert_eq!(buf[..got], *bytes.get(offset..end).unwrap_or_default(), "{offset} {len}");
    }
}

#[test]
fn random_trees_are_shown_as_they_are() {
    let Some(fixture) = connect() else { return };
    let name = "[a-zA-Z0-9 ._é-]{1,12}".prop_filter("not a name", |name| name != "." && name != "..");
    let nodes = prop::collection::vec((any::<prop::sample::Index>(), name, node()), 0..40).prop_map(tree);
    let pieces = prop::collection::vec(any::<(u32, u16)>(), 1..8);
    let mut number = 0;
    let mut runner = TestRunner::new(Config { failure_persistence: None, cases: 96, ..Config::default() });
    let numbers = std::cell::RefCell::new(&mut number);
    runner
        .run(&(nodes, pieces), |(tree, pieces)| {
            let number = {
                let mut number = numbers.borrow_mut();
                **number += 1;
                **number
            };
            let root = fixture.attach(number, layer(&tree));
            // In any order: pieces first or the whole tree first, so that both are seen cold.
            let files = || tree.iter().filter(|(_, node)| node.kind == Kind::Reg);
            if number % 2 == 0 {
                files().for_each(|(path, node)| read_pieces(&root.join(path), &node.bytes, &pieces));
            }
            let mut found = Tree::new();
            walk(&root, "", &mut found);
            prop_assert_eq!(&found, &tree);
            files().for_each(|(path, node)| read_pieces(&root.join(path), &node.bytes, &pieces));
            prop_assert!(fixture.connection.detach(slot(number)));
            Ok(())
        })
        .unwrap();
}
