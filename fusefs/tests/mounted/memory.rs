//! A layer in memory, whose files may be made to come late, to hang or to fail.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use estargz::{Kind, NodeId};
use fusefs::{Attributes, Failure, LayerTree, Listed, ReadFuture, Totals};
use tokio::sync::Notify;

/// What a file holds and how it comes.
#[derive(Clone)]
pub(crate) enum Content {
    /// These bytes, at once.
    Bytes(Vec<u8>),
    /// So many bytes, told by [`pattern`], at once.
    Pattern(u64),
    /// These bytes, after a while; never cached.
    Late(Vec<u8>, Duration),
    /// So many bytes that never come.
    Hanging(u64),
    /// So many bytes that cannot be had.
    Failing(u64),
    /// Claims so many bytes, gives one less.
    Short(u64),
}

pub(crate) struct MemoryLayer {
    nodes: Vec<MemoryNode>,
    /// Reads that hang right now.
    pub(crate) hanging: Arc<AtomicUsize>,
    /// Lets the hanging reads go, with an error.
    pub(crate) release: Arc<Notify>,
}

struct MemoryNode {
    attributes: Attributes,
    entries: BTreeMap<Vec<u8>, NodeId>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    target: Vec<u8>,
    content: Content,
}

/// The byte of a patterned file at an offset.
pub(crate) fn pattern(offset: u64) -> u8 {
    (offset ^ (offset >> 8) ^ (offset >> 17) ^ (offset >> 31)) as u8
}

fn size_of(content: &Content) -> u64 {
    match content {
        Content::Bytes(bytes) | Content::Late(bytes, _) => bytes.len() as u64,
        Content::Pattern(size) | Content::Hanging(size) | Content::Failing(size) | Content::Short(size) => {
            *size
        }
    }
}

impl MemoryLayer {
    pub(crate) fn new() -> Self {
        let mut layer = Self { nodes: Vec::new(), hanging: Arc::default(), release: Arc::new(Notify::new()) };
        layer.push(Kind::Dir, 0o755, NodeId::ROOT);
        layer
    }

    fn push(&mut self, kind: Kind, perm: u16, parent: NodeId) -> NodeId {
        let attributes = Attributes {
            kind,
            perm,
            uid: 0,
            gid: 0,
            nlink: if kind == Kind::Dir { 2 } else { 1 },
            rdev: (0, 0),
            size: 0,
            mtime: (1_600_000_000, 0),
            opaque: false,
            parent,
        };
        self.nodes.push(MemoryNode {
            attributes,
            entries: BTreeMap::new(),
            xattrs: BTreeMap::new(),
            target: Vec::new(),
            content: Content::Bytes(Vec::new()),
        });
        NodeId::new(self.nodes.len() as u32).unwrap()
    }

    fn raw(&self, id: NodeId) -> Result<&MemoryNode, Failure> {
        self.nodes.get(id.get() as usize - 1).ok_or(Failure::Stale)
    }

    /// The node at a path, for changes.
    pub(crate) fn find(&self, path: &str) -> NodeId {
        path.split('/')
            .filter(|name| !name.is_empty())
            .fold(NodeId::ROOT, |dir, name| self.raw(dir).unwrap().entries[name.as_bytes()])
    }

    pub(crate) fn change(&mut self, path: &str, change: impl FnOnce(&mut Attributes)) -> &mut Self {
        let id = self.find(path);
        change(&mut self.nodes[id.get() as usize - 1].attributes);
        self
    }

    /// Adds a node; directories above it appear by themselves.
    pub(crate) fn add(&mut self, path: &str, kind: Kind, perm: u16) -> NodeId {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = NodeId::ROOT;
        for step in parents.split('/').filter(|step| !step.is_empty()) {
            let found = self.raw(dir).unwrap().entries.get(step.as_bytes()).copied();
            dir = found.unwrap_or_else(|| self.add_to(dir, step, Kind::Dir, 0o755));
        }
        self.add_to(dir, name, kind, perm)
    }

    fn add_to(&mut self, dir: NodeId, name: &str, kind: Kind, perm: u16) -> NodeId {
        let id = self.push(kind, perm, dir);
        let parent = &mut self.nodes[dir.get() as usize - 1];
        parent.entries.insert(name.as_bytes().to_vec(), id);
        if kind == Kind::Dir {
            parent.attributes.nlink += 1;
        }
        id
    }

    pub(crate) fn dir(&mut self, path: &str, perm: u16) -> &mut Self {
        self.add(path, Kind::Dir, perm);
        self
    }

    pub(crate) fn file(&mut self, path: &str, perm: u16, content: Content) -> &mut Self {
        let id = self.add(path, Kind::Reg, perm);
        let node = &mut self.nodes[id.get() as usize - 1];
        node.attributes.size = size_of(&content);
        node.content = content;
        self
    }

    pub(crate) fn text(&mut self, path: &str, text: &str) -> &mut Self {
        self.file(path, 0o644, Content::Bytes(text.as_bytes().to_vec()))
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) -> &mut Self {
        let id = self.add(path, Kind::Symlink, 0o777);
        let node = &mut self.nodes[id.get() as usize - 1];
        node.attributes.size = target.len() as u64;
        node.target = target.as_bytes().to_vec();
        self
    }

    pub(crate) fn hard_link(&mut self, path: &str, to: &str) -> &mut Self {
        let target = self.find(to);
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.find(parents);
        self.nodes[dir.get() as usize - 1].entries.insert(name.as_bytes().to_vec(), target);
        self.nodes[target.get() as usize - 1].attributes.nlink += 1;
        self
    }

    pub(crate) fn device(&mut self, path: &str, kind: Kind, rdev: (u32, u32)) -> &mut Self {
        self.add(path, kind, 0o600);
        self.change(path, |attributes| attributes.rdev = rdev)
    }

    pub(crate) fn xattr(&mut self, path: &str, name: &str, value: &[u8]) -> &mut Self {
        let id = self.find(path);
        self.nodes[id.get() as usize - 1].xattrs.insert(name.into(), value.to_vec());
        self
    }
}

impl LayerTree for MemoryLayer {
    fn attributes(&self, node: NodeId) -> Result<Attributes, Failure> {
        self.raw(node).map(|node| node.attributes)
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>, Failure> {
        Ok(self.raw(dir)?.entries.get(name).copied())
    }

    fn list(
        &self,
        dir: NodeId,
        from: u64,
        visit: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        for (position, (name, &node)) in (1..).zip(&self.raw(dir)?.entries).skip(from as usize) {
            let kind = self.raw(node)?.attributes.kind;
            if visit(Listed { name, node, kind, position }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn position_after(&self, dir: NodeId, name: &[u8]) -> Result<u64, Failure> {
        Ok(self.raw(dir)?.entries.keys().take_while(|found| found.as_slice() <= name).count() as u64)
    }

    fn path(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        if node == NodeId::ROOT {
            return Ok(Vec::new());
        }
        let parent = self.raw(node)?.attributes.parent;
        let entries = &self.raw(parent)?.entries;
        let (name, _) = entries.iter().find(|(_, found)| **found == node).ok_or(Failure::Stale)?;
        Ok([self.path(parent)?, name.clone()].join(&b'/'))
    }

    fn link_target(&self, link: NodeId) -> Result<&[u8], Failure> {
        Ok(&self.raw(link)?.target)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<&[u8]>, Failure> {
        Ok(self.raw(node)?.xattrs.get(name).map(Vec::as_slice))
    }

    fn xattr_names(&self, node: NodeId, visit: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        self.raw(node)?.xattrs.keys().for_each(|name| visit(name));
        Ok(())
    }

    fn read_cached(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, Failure> {
        match &self.raw(file)?.content {
            Content::Bytes(bytes) => {
                buf.copy_from_slice(&bytes[offset as usize..][..buf.len()]);
                Ok(Some(buf.len()))
            }
            Content::Pattern(_) => {
                (offset..).zip(buf.iter_mut()).for_each(|(at, byte)| *byte = pattern(at));
                Ok(Some(buf.len()))
            }
            Content::Short(_) => Ok(Some(buf.len() - 1)),
            Content::Late(..) | Content::Hanging(_) | Content::Failing(_) => Ok(None),
        }
    }

    fn read(self: Arc<Self>, file: NodeId, offset: u64, len: usize) -> ReadFuture {
        Box::pin(async move {
            match &self.raw(file)?.content {
                Content::Late(bytes, delay) => {
                    tokio::time::sleep(*delay).await;
                    Ok(Bytes::copy_from_slice(&bytes[offset as usize..][..len]))
                }
                Content::Hanging(_) => {
                    let released = self.release.notified();
                    self.hanging.fetch_add(1, SeqCst);
                    released.await;
                    self.hanging.fetch_sub(1, SeqCst);
                    Err(Failure::Read("the origin went away".into()))
                }
                _ => Err(Failure::Read("the chunk does not match its digest".into())),
            }
        })
    }

    fn totals(&self) -> Totals {
        let bytes = self.nodes.iter().map(|node| node.attributes.size).sum();
        Totals { nodes: self.nodes.len() as u64, bytes }
    }

    fn describe(&self) -> String {
        "a layer in memory".into()
    }
}
