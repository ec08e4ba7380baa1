//! Nodes: attributes of files, directories, links and devices.

use super::{
    Index, IndexError, NodeId,
    layout::{NodeRecord, OPAQUE},
};

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A directory.
    Dir = 1,
    /// A regular file.
    Reg = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A character device; with number 0:0 a whiteout of overlayfs.
    Char = 4,
    /// A block device.
    Block = 5,
    /// A named pipe.
    Fifo = 6,
}

/// A node's attributes.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    id: NodeId,
    kind: Kind,
    record: &'a NodeRecord,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Dir, Self::Reg, Self::Symlink, Self::Char, Self::Block, Self::Fifo]
            .into_iter()
            .find(|&kind| kind as u8 == byte)
    }
}

impl<'a> Node<'a> {
    /// The node's number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// What the node is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Permissions with set-user-id, set-group-id and sticky bits (`07777`).
    pub fn perm(&self) -> u16 {
        self.record.perm.get() & 0o7777
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        self.record.uid.get()
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        self.record.gid.get()
    }

    /// Number of names; of a directory 2 and the number of its subdirectories.
    pub fn nlink(&self) -> u32 {
        self.record.nlink.get()
    }

    /// Major device number; 0 for what is not a device.
    pub fn rdev_major(&self) -> u32 {
        if self.is_device() { self.record.a.get() } else { 0 }
    }

    /// Minor device number; 0 for what is not a device.
    pub fn rdev_minor(&self) -> u32 {
        if self.is_device() { self.record.b.get() } else { 0 }
    }

    /// Length in bytes: of a regular file its content, of a symbolic link its target, else 0.
    pub fn size(&self) -> u64 {
        self.record.size.get()
    }

    /// Time of last modification: seconds since 1970 and nanoseconds.
    pub fn mtime(&self) -> (i64, u32) {
        (self.record.mtime_sec.get(), self.record.mtime_nsec.get())
    }

    /// Whether this directory hides what lower layers have under its name.
    pub fn is_opaque(&self) -> bool {
        self.record.flags & OPAQUE != 0
    }

    /// Directory that holds the node's first name, of which a directory has just the one. The root is its own.
    pub fn parent(&self) -> NodeId {
        NodeId::new(self.record.parent.get()).unwrap_or(NodeId::ROOT)
    }

    pub(super) fn record(&self) -> &'a NodeRecord {
        self.record
    }

    /// The node itself if it is of the kind `wanted`.
    pub(super) fn of_kind(self, wanted: Kind) -> Result<Self, IndexError> {
        if self.kind == wanted { Ok(self) } else { Err(IndexError::WrongKind { node: self.id, wanted }) }
    }

    fn is_device(&self) -> bool {
        matches!(self.kind, Kind::Char | Kind::Block)
    }
}

impl<B: AsRef<[u8]>> Index<B> {
    /// The node with number `id`.
    pub fn node(&self, id: NodeId) -> Result<Node<'_>, IndexError> {
        let record = self.nodes().get(id.position()).ok_or(IndexError::NoSuchNode(id))?;
        let kind =
            Kind::from_byte(record.kind).ok_or(IndexError::Damaged { what: "unknown kind of node" })?;
        Ok(Node { id, kind, record })
    }

    /// Where the symbolic link `id` points.
    pub fn symlink_target(&self, id: NodeId) -> Result<&[u8], IndexError> {
        let link = self.node(id)?.of_kind(Kind::Symlink)?.record();
        self.string(link.a, link.b.get() as usize)
    }
}
