use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};
use testkit::blob;

use super::*;
use crate::{Index, IndexError, Kind, NodeId};

mod content;
mod hostile;
mod model;
mod rules;

/// Where the TOC of tests starts that need no blob.
const TOC_OFFSET: u64 = 1 << 40;

type View = Index<Vec<u8>>;

fn build(entries: &[Value]) -> Result<View, TocError> {
    build_json(&blob::toc_json(entries))
}

fn build_json(json: &[u8]) -> Result<View, TocError> {
    let built = build_index(blob::section(json).as_slice(), TOC_OFFSET, TOC_OFFSET + (1 << 30))?;
    assert_eq!(built.toc_digest, Digest::of(json));
    Ok(Index::parse(built.index).expect("what was built can be opened"))
}

/// The error for a TOC, as a user sees it.
fn refusal(entries: &[Value]) -> String {
    build(entries).map(|index| tree(&index)).expect_err("refused").to_string()
}

fn reg(name: &str) -> Value {
    json!({"name": name, "type": "reg"})
}

fn dir(name: &str) -> Value {
    json!({"name": name, "type": "dir", "mode": 0o755})
}

fn find(index: &View, path: &str) -> NodeId {
    try_find(index, path).unwrap_or_else(|| panic!("{path} is there"))
}

fn try_find(index: &View, path: &str) -> Option<NodeId> {
    path.split('/').try_fold(NodeId::ROOT, |dir, name| index.lookup(dir, name.as_bytes()).unwrap())
}

/// All paths with kind and link count, and what is special about them, in order.
fn tree(index: &View) -> String {
    let mut text = String::new();
    walk(index, &mut |path, id| {
        let node = index.node(id).unwrap();
        write!(text, "{path} {:?} {}", node.kind(), node.nlink()).unwrap();
        match node.kind() {
            Kind::Char | Kind::Block => write!(text, " {}:{}", node.rdev_major(), node.rdev_minor()).unwrap(),
            Kind::Symlink => {
                write!(text, " {}", String::from_utf8_lossy(index.symlink_target(id).unwrap())).unwrap()
            }
            Kind::Dir if node.is_opaque() => text.push_str(" opaque"),
            _ => {}
        }
        text.push('\n');
    });
    text
}

fn walk(index: &View, visit: &mut dyn FnMut(&str, NodeId)) {
    fn below(index: &View, path: &str, dir: NodeId, visit: &mut dyn FnMut(&str, NodeId)) {
        for entry in index.entries(dir, 0).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{path}/{}", std::str::from_utf8(entry.name).unwrap());
            assert_eq!(index.lookup(dir, entry.name), Ok(Some(entry.node)));
            assert_eq!(index.node(entry.node).unwrap().kind(), entry.kind);
            visit(&path, entry.node);
            if entry.kind == Kind::Dir {
                assert_eq!(index.path(entry.node).unwrap(), path.trim_start_matches('/').as_bytes());
                assert_eq!(index.node(entry.node).unwrap().parent(), dir);
                below(index, &path, entry.node, visit);
            }
        }
    }
    visit("", NodeId::ROOT);
    below(index, "", NodeId::ROOT, visit);
}

fn xattrs(index: &View, id: NodeId) -> BTreeMap<String, Vec<u8>> {
    let all = index.xattrs(id).unwrap().map(Result::unwrap);
    all.map(|(name, value)| {
        assert_eq!(index.xattr(id, name), Ok(Some(value)));
        (String::from_utf8(name.to_vec()).unwrap(), value.to_vec())
    })
    .collect()
}
