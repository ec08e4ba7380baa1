//! What a layer is to the kernel side: an immutable tree of nodes and a source of verified bytes.
//!
//! All answers but [`LayerTree::read`] come at once, without a lock that is held across I/O. Whoever implements this
//! for something else than a layer of the store (tests do) keeps the same promise: nothing ever changes.

mod layer;

use std::{ops::ControlFlow, pin::Pin, sync::Arc};

use bytes::Bytes;
use estargz::{Entry, Kind, Node, NodeId};

use crate::Failure;

/// Verified bytes that are on their way.
pub type ReadFuture = Pin<Box<dyn Future<Output = Result<Bytes, Failure>> + Send>>;

/// A layer, as the kernel side sees it.
pub trait LayerTree: Send + Sync + 'static {
    /// Attributes of a node.
    fn attributes(&self, node: NodeId) -> Result<Attributes, Failure>;

    /// The node with this name in a directory.
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>, Failure>;

    /// Shows the entries of a directory in the order of their names (as bytes), without `.` and `..`, until `visit`
    /// breaks off. `from` is 0 or the position of the last entry that was seen.
    fn list(
        &self,
        dir: NodeId,
        from: u64,
        visit: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure>;

    /// Where [`Self::list`] has to begin to show the names after `name`, which need not be there.
    fn position_after(&self, dir: NodeId, name: &[u8]) -> Result<u64, Failure>;

    /// The path of a node's first name, without a leading slash; empty for the root.
    fn path(&self, node: NodeId) -> Result<Vec<u8>, Failure>;

    /// Target of a symbolic link.
    fn link_target(&self, link: NodeId) -> Result<&[u8], Failure>;

    /// Value of an extended attribute that the image gave the node.
    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<&[u8]>, Failure>;

    /// Shows the names of the extended attributes that the image gave the node.
    fn xattr_names(&self, node: NodeId, visit: &mut dyn FnMut(&[u8])) -> Result<(), Failure>;

    /// Fills `buf` from a file's bytes at `offset` if they are all here and verified; None if some are not. The number
    /// of bytes is less than `buf`'s length only at the end of the file.
    fn read_cached(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, Failure>;

    /// The bytes of a file from `offset` on, `len` of them or up to the end of the file, once they are here and
    /// verified. Ends within a bounded time.
    fn read(self: Arc<Self>, file: NodeId, offset: u64, len: usize) -> ReadFuture;

    /// Size of the layer, for `statfs`.
    fn totals(&self) -> Totals;

    /// What this is, for messages.
    fn describe(&self) -> String;
}

/// Attributes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// What the node is.
    pub kind: Kind,
    /// Permissions with set-user-id, set-group-id and sticky bits (`07777`).
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub nlink: u32,
    /// Major and minor number of a device, else 0.
    pub rdev: (u32, u32),
    /// Length in bytes of a file's content or a link's target.
    pub size: u64,
    /// Time of last modification: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Whether the directory hides what lower layers have under its name.
    pub opaque: bool,
    /// Directory that holds the node's first name; the root is its own.
    pub parent: NodeId,
}

// === impl Attributes ===

impl From<Node<'_>> for Attributes {
    /// What an index says of a node.
    fn from(node: Node<'_>) -> Self {
        Self {
            kind: node.kind(),
            perm: node.perm(),
            uid: node.uid(),
            gid: node.gid(),
            nlink: node.nlink(),
            rdev: (node.rdev_major(), node.rdev_minor()),
            size: node.size(),
            mtime: node.mtime(),
            opaque: node.is_opaque(),
            parent: node.parent(),
        }
    }
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// The name.
    pub name: &'a [u8],
    /// What it stands for.
    pub node: NodeId,
    /// Kind of that node.
    pub kind: Kind,
    /// Where to go on after this entry; at least 1, rising, and the same in every listing.
    pub position: u64,
}

// === impl Listed ===

impl<'a> From<Entry<'a>> for Listed<'a> {
    /// What an index lists.
    fn from(entry: Entry<'a>) -> Self {
        Self { name: entry.name, node: entry.node, kind: entry.kind, position: entry.position }
    }
}

/// Size of a layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Number of nodes.
    pub nodes: u64,
    /// Sum of the sizes of all files.
    pub bytes: u64,
}

// === impl Totals ===

impl Totals {
    /// The size of two layers.
    pub(crate) fn plus(self, more: Self) -> Self {
        Self { nodes: self.nodes.saturating_add(more.nodes), bytes: self.bytes.saturating_add(more.bytes) }
    }
}
