//! A blob as our reader sees it, in the words of the Go library's listing.

use std::collections::BTreeMap;

use estargz::{
    Digest, Index, Kind, NodeId, Sha256,
    decode::{self, Inflater, MemberStream},
    footer,
    toc::build_index,
};
use testkit::golden::GoldenNode;

/// Stands among the attributes of an opaque directory.
pub(crate) const OPAQUE: &str = "(opaque)";
/// What Go's zero time is in seconds since 1970: a directory without an entry has it.
const GO_ZERO_TIME: i64 = -62_135_596_800;
/// Attributes that no layer is to set.
const DROPPED: [&str; 2] = ["trusted.", "user.overlay."];

/// How contents are inflated.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Decoder {
    OneGo,
    Stream,
}

/// A blob and its index.
pub(crate) struct Layer<'a> {
    blob: &'a [u8],
    pub(crate) index: Index<Vec<u8>>,
    pub(crate) toc_digest: Digest,
    decoder: Decoder,
    nodes: BTreeMap<String, GoldenNode>,
    inflater: Inflater,
}

impl<'a> Layer<'a> {
    pub(crate) fn open(blob: &'a [u8], decoder: Decoder) -> Self {
        let tail = &blob[blob.len().saturating_sub(footer::MAX_LEN)..];
        let footer = footer::parse(tail, blob.len() as u64).unwrap();
        let section = &blob[footer.toc_offset as usize..blob.len() - footer.len as usize];
        let built = build_index(section, footer.toc_offset, blob.len() as u64).unwrap();
        let index = Index::parse(built.index).unwrap();
        assert_eq!(index.toc_digest(), built.toc_digest);
        let (toc_digest, nodes) = (built.toc_digest, BTreeMap::new());
        Self { blob, index, toc_digest, decoder, nodes, inflater: Inflater::new() }
    }

    /// Every node by path. Every chunk is verified on the way.
    pub(crate) fn nodes(mut self) -> BTreeMap<String, GoldenNode> {
        self.walk(NodeId::ROOT, String::new());
        self.nodes
    }

    fn walk(&mut self, id: NodeId, path: String) {
        let node = self.describe(id, path.clone());
        let is_dir = node.kind == "dir";
        self.nodes.insert(path.clone(), node);
        if !is_dir {
            return;
        }
        let entries = self.index.entries(id, 0).unwrap();
        let names = entries.map(|entry| entry.map(|entry| (entry.node, entry.name.to_vec())));
        for (child, name) in names.collect::<Result<Vec<_>, _>>().unwrap() {
            assert_eq!(self.index.lookup(id, &name).unwrap(), Some(child));
            let name = String::from_utf8(name).unwrap();
            self.walk(child, if path.is_empty() { name } else { format!("{path}/{name}") });
        }
    }

    fn describe(&mut self, id: NodeId, path: String) -> GoldenNode {
        let sha256 = self.sha256(id);
        let node = self.index.node(id).unwrap();
        let kind = match node.kind() {
            Kind::Dir => "dir",
            Kind::Reg => "reg",
            Kind::Symlink => "symlink",
            Kind::Char => "char",
            Kind::Block => "block",
            Kind::Fifo => "fifo",
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let link = node.kind() == Kind::Symlink;
        let link = if link { text(self.index.symlink_target(id).unwrap()) } else { String::new() };
        let xattrs = self.index.xattrs(id).unwrap().map(|pair| {
            let (name, value) = pair.unwrap();
            (text(name), value.to_vec())
        });
        let opaque = node.is_opaque().then(|| (OPAQUE.to_owned(), Vec::new()));
        let (mtime, nanoseconds) = node.mtime();
        assert_eq!(nanoseconds, 0, "the library writes whole seconds: {path}");
        GoldenNode {
            kind: kind.to_owned(),
            mode: node.perm().into(),
            uid: node.uid(),
            gid: node.gid(),
            size: if node.kind() == Kind::Reg { node.size() } else { 0 },
            link,
            num_link: if path.is_empty() { 0 } else { node.nlink() },
            dev_major: node.rdev_major(),
            dev_minor: node.rdev_minor(),
            mtime,
            sha256,
            xattrs: xattrs.chain(opaque).collect(),
            path,
        }
    }

    /// Reads a file, verifies its chunks and gives the digest of the whole.
    fn sha256(&mut self, id: NodeId) -> String {
        let node = self.index.node(id).unwrap();
        if node.kind() != Kind::Reg || node.size() == 0 {
            return String::new();
        }
        let layout = self.index.file(id).unwrap();
        let mut whole = Sha256::new();
        let mut end = 0;
        for id in self.index.chunks_of(id, 0..layout.size).unwrap() {
            let chunk = self.index.chunk(id).unwrap();
            assert_eq!(chunk.content_offset, layout.content_offset + end);
            end += chunk.len;
            let member = &self.blob[chunk.member_start as usize..chunk.member_end as usize];
            let need = chunk.inner_offset + chunk.len;
            if self.decoder == Decoder::OneGo {
                let inflated = self.inflater.inflate(member, need).unwrap();
                let bytes = &inflated[chunk.inner_offset as usize..];
                decode::verify(bytes, &chunk.digest).unwrap();
                whole.update(bytes);
            } else {
                let mut stream = MemberStream::new(need);
                let mut sum = Sha256::new();
                let mut sink = |offset: u64, bytes: &[u8]| {
                    let skip = chunk.inner_offset.saturating_sub(offset).min(bytes.len() as u64);
                    sum.update(&bytes[skip as usize..]);
                    whole.update(&bytes[skip as usize..]);
                };
                stream.push(member, &mut sink).unwrap();
                stream.finish().unwrap();
                assert_eq!(sum.finish(), chunk.digest);
            }
        }
        assert_eq!(end, layout.size);
        whole.finish().hex()
    }
}

/// Evens out what the library's listing leaves open: bits of the mode that tell the kind, times of directories without
/// entries, the root's link count, and landmarks, which it takes for files.
pub(crate) fn listed(nodes: impl IntoIterator<Item = GoldenNode>) -> BTreeMap<String, GoldenNode> {
    let nodes = nodes.into_iter().filter(|node| !node.path.ends_with("prefetch.landmark"));
    let even = |mut node: GoldenNode| {
        node.mode &= 0o7777;
        if node.mtime == GO_ZERO_TIME {
            node.mtime = 0;
        }
        if node.path.is_empty() {
            node.num_link = 0;
        }
        (node.path.clone(), node)
    };
    nodes.map(even).collect()
}

/// Makes of a listing what a mounted layer shows: whiteouts as overlayfs has them, no attributes for the host's root.
pub(crate) fn mounted(mut nodes: BTreeMap<String, GoldenNode>) -> BTreeMap<String, GoldenNode> {
    let whiteouts: BTreeMap<_, _> = nodes.extract_if(.., |path, _| path.contains(".wh.")).collect();
    for path in whiteouts.into_keys() {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            nodes.get_mut(dir).unwrap().xattrs.insert(OPAQUE.to_owned(), Vec::new());
            continue;
        }
        let path = path.replace(".wh.", "");
        nodes.insert(path.clone(), whiteout(path));
    }
    for node in nodes.values_mut() {
        node.xattrs.retain(|name, _| !DROPPED.iter().any(|prefix| name.starts_with(prefix)));
    }
    nodes
}

/// What overlayfs takes for a name that is gone: a character device 0:0.
fn whiteout(path: String) -> GoldenNode {
    GoldenNode {
        path,
        kind: "char".to_owned(),
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        link: String::new(),
        num_link: 1,
        dev_major: 0,
        dev_minor: 0,
        mtime: 0,
        sha256: String::new(),
        xattrs: BTreeMap::new(),
    }
}

/// Compares node by node, so that a message stays short.
#[track_caller]
pub(crate) fn assert_same(found: &BTreeMap<String, GoldenNode>, expected: &BTreeMap<String, GoldenNode>) {
    for (path, expected) in expected {
        assert_eq!(found.get(path), Some(expected), "{path}");
    }
    let more: Vec<_> = found.keys().filter(|path| !expected.contains_key(*path)).take(10).collect();
    assert!(more.is_empty(), "only one side has {more:?}");
}
