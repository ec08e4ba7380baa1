//! What the writer writes, the reader reads: random layers through blob, footer, index and chunks.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use estargz::{
    Index, Kind, NodeId,
    decode::{self, Inflater},
    footer,
    toc::build_index,
    write::{Level, Options, build},
};
use proptest::prelude::*;

/// A layer's tree: what each path should be. A hard link's path has its target's node.
type Model = BTreeMap<String, Expected>;

#[derive(Debug, Clone, PartialEq)]
enum Expected {
    Dir { mode: u32 },
    File { data: Vec<u8>, mode: u32, xattrs: BTreeMap<String, Vec<u8>> },
    Symlink(String),
    Device { major: u32, minor: u32 },
    Fifo,
}

/// One entry of an archive.
#[derive(Debug, Clone)]
enum Op {
    Add(String, Expected),
    Link(String, String),
}

fn expected() -> impl Strategy<Value = Expected> {
    let xattrs = proptest::collection::btree_map(
        "user\\.[a-z]{1,5}",
        proptest::collection::vec(any::<u8>(), 1..20),
        0..2,
    );
    let data = proptest::collection::vec(any::<u8>(), 0..5000);
    prop_oneof![
        2 => (0u32..0o10000).prop_map(|mode| Expected::Dir { mode }),
        4 => (data, 0u32..0o10000, xattrs).prop_map(|(data, mode, xattrs)| Expected::File { data, mode, xattrs }),
        1 => "[a-zé]{1,75}".prop_map(Expected::Symlink),
        1 => (1u32..4096, 0u32..100_000).prop_map(|(major, minor)| Expected::Device { major, minor }),
        1 => Just(Expected::Fifo),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let path = || "[ab]{1,2}(/[ab]{1,2}){0,3}|[a-c]{1,2}/é{100}/[a-c]";
    let op = prop_oneof![
        4 => (path(), expected()).prop_map(|(path, node)| Op::Add(path, node)),
        1 => (path(), path()).prop_map(|(path, target)| Op::Link(path, target)),
    ];
    proptest::collection::vec(op, 0..40)
}

/// Writes the entries that can be unpacked one after another, and tells what they make together.
fn archive(ops: &[Op]) -> (Vec<u8>, Model) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut model = Model::new();
    for op in ops {
        let (path, node) = match op {
            Op::Add(path, node) => (path, Some(node.clone())),
            Op::Link(path, target) => (path, link_target(&model, path, target)),
        };
        let Some(node) = node else { continue };
        let below_file =
            model.iter().any(|(other, node)| is_below(path, other) && !matches!(node, Expected::Dir { .. }));
        if below_file {
            continue;
        }
        match op {
            Op::Add(path, node) => append(&mut builder, path, node),
            Op::Link(path, target) => builder.append_link(&mut header('1', 0), path, target).unwrap(),
        }
        if !matches!(node, Expected::Dir { .. }) {
            model.retain(|other, _| !is_below(other, path));
        }
        model.insert(path.clone(), node);
    }
    (builder.into_inner().unwrap(), model)
}

/// What a hard link makes, if it can be made: its target must survive the removal of what the link replaces.
fn link_target(model: &Model, path: &str, target: &str) -> Option<Expected> {
    let node = model.get(target).filter(|node| !matches!(node, Expected::Dir { .. }))?;
    (path != target && !is_below(target, path)).then(|| node.clone())
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn header(kind: char, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(kind as u8));
    header.set_size(size as u64);
    header.set_mtime(1_234_567_890);
    header.set_uid(1000);
    header.set_gid(100);
    header.set_mode(0o644);
    header
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, node: &Expected) {
    let mut data: &[u8] = &[];
    let mut header = match node {
        Expected::Symlink(target) => {
            return builder.append_link(&mut header('2', 0), path, target).unwrap();
        }
        Expected::Dir { mode } => {
            let mut header = header('5', 0);
            header.set_mode(*mode);
            header
        }
        Expected::File { data: content, mode, xattrs } => {
            let records =
                xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice()));
            let records: Vec<_> = records.collect();
            builder
                .append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), *value)))
                .unwrap();
            data = content;
            let mut header = header('0', content.len());
            header.set_mode(*mode);
            header
        }
        Expected::Device { major, minor } => {
            let mut header = header('3', 0);
            header.set_device_major(*major).unwrap();
            header.set_device_minor(*minor).unwrap();
            header
        }
        Expected::Fifo => header('6', 0),
    };
    builder.append_data(&mut header, path, data).unwrap();
}

/// Reads a whole blob through its index.
fn read(blob: &[u8]) -> Model {
    let tail = &blob[blob.len().saturating_sub(footer::MAX_LEN)..];
    let footer = footer::parse(tail, blob.len() as u64).unwrap();
    let section = &blob[footer.toc_offset as usize..blob.len() - footer.len as usize];
    let built = build_index(section, footer.toc_offset, blob.len() as u64).unwrap();
    let index = Index::parse(built.index).unwrap();
    let mut model = Model::new();
    read_dir(&index, blob, NodeId::ROOT, "", &mut model);
    model
}

fn read_dir(index: &Index<Vec<u8>>, blob: &[u8], dir: NodeId, path: &str, model: &mut Model) {
    for entry in index.entries(dir, 0).unwrap() {
        let entry = entry.unwrap();
        let name = std::str::from_utf8(entry.name).unwrap();
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        let node = index.node(entry.node).unwrap();
        let found = match node.kind() {
            Kind::Dir => {
                read_dir(index, blob, entry.node, &path, model);
                Expected::Dir { mode: node.perm().into() }
            }
            Kind::Reg => {
                let xattrs = index.xattrs(entry.node).unwrap().map(|xattr| {
                    let (name, value) = xattr.unwrap();
                    (String::from_utf8(name.to_vec()).unwrap(), value.to_vec())
                });
                let data = read_file(index, blob, entry.node, node.size());
                Expected::File { data, mode: node.perm().into(), xattrs: xattrs.collect() }
            }
            Kind::Symlink => {
                let target = index.symlink_target(entry.node).unwrap().to_vec();
                Expected::Symlink(String::from_utf8(target).unwrap())
            }
            Kind::Char => Expected::Device { major: node.rdev_major(), minor: node.rdev_minor() },
            Kind::Fifo => Expected::Fifo,
            other => panic!("{path} is {other:?}"),
        };
        // An implied directory has no times of its own.
        if !matches!(found, Expected::Dir { .. }) {
            assert_eq!((node.uid(), node.gid(), node.mtime()), (1000, 100, (1_234_567_890, 0)), "{path}");
        }
        model.insert(path, found);
    }
}

fn read_file(index: &Index<Vec<u8>>, blob: &[u8], id: NodeId, size: u64) -> Vec<u8> {
    let mut data = Vec::new();
    let mut inflater = Inflater::new();
    for id in index.chunks_of(id, 0..size).unwrap() {
        let chunk = index.chunk(id).unwrap();
        let member = &blob[chunk.member_start as usize..chunk.member_end as usize];
        let inflated = inflater.inflate(member, chunk.inner_offset + chunk.len).unwrap();
        let bytes = &inflated[chunk.inner_offset as usize..];
        decode::verify(bytes, &chunk.digest).unwrap();
        data.extend_from_slice(bytes);
    }
    assert_eq!(data.len() as u64, size);
    data
}

/// Adds the directories that a model's paths imply.
fn with_parents(mut model: Model) -> Model {
    let paths: Vec<_> = model.keys().cloned().collect();
    for path in paths {
        for (at, _) in path.match_indices('/') {
            model.entry(path[..at].to_owned()).or_insert(Expected::Dir { mode: 0o755 });
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn a_layer_comes_back(
        ops in ops(),
        chunk_size in prop_oneof![Just(4u64 << 20), 100u64..3000],
        pack_size in prop_oneof![Just(0u64), 1000u64..20_000],
        prioritized in proptest::collection::vec("[ab]{1,2}(/[ab]{1,2}){0,2}", 0..4),
    ) {
        let (tar, model) = archive(&ops);
        let options = Options {
            chunk_size: chunk_size.try_into().unwrap(),
            pack_size,
            level: Level::new(1).unwrap(),
            prioritized,
        };
        let built = build(&tar, &options).unwrap();
        prop_assert_eq!(read(&built.blob), with_parents(model));
    }
}
