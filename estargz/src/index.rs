//! The index of a layer: what its TOC says, in tables that are read where they lie.
//!
//! [`Index`] is a view over the bytes of an index file (`index/layout.rs`), most often a memory map.
//! Opening it reads the header only. Every access is checked against the tables' bounds, so that a
//! damaged file gives wrong answers or an [`IndexError`], never a panic and never an endless loop. That the
//! bytes are the ones that [`crate::toc::build_index`] made is the caller's concern; [`Index::check`] tells.

mod chunks;
mod dir;
pub(crate) mod layout;
mod node;
mod xattr;

use std::{fmt, num::NonZeroU32, ops::Range};

use zerocopy::{
    FromBytes,
    little_endian::{U32, U64},
};

use self::layout::{
    ChunkRecord, EntryRecord, HAS_POSIX_ACL, HeaderRecord, MAGIC, NO_OPAQUE, NO_XATTRS, NodeRecord, Record,
    VERSION, XattrRecord, checksum,
};
pub use self::{
    chunks::{Chunk, ChunkId, Chunks, FileLayout},
    dir::{Entries, Entry},
    node::{Kind, Node},
    xattr::{Xattr, Xattrs},
};
use crate::{Digest, limits};

/// The number of a node in its layer. A pure function of the TOC; 1 is the root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU32);

/// Why an index cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The file does not start as an index file does.
    #[error("not an index file")]
    NotAnIndex,
    /// The file was made by another version.
    #[error("index file of version {found}, this is version {VERSION}")]
    OtherVersion {
        /// Version in the file.
        found: u32,
    },
    /// The node number is not of this layer.
    #[error("no node {0}")]
    NoSuchNode(NodeId),
    /// The chunk number is not of this layer.
    #[error("no chunk {}", .0.0)]
    NoSuchChunk(ChunkId),
    /// The question does not fit the kind of node.
    #[error("node {node} is not a {wanted:?}")]
    WrongKind {
        /// The node asked about.
        node: NodeId,
        /// What it would have to be.
        wanted: Kind,
    },
    /// The file contradicts itself.
    #[error("index file is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
}

/// A view over an index file. See the [module](self).
pub struct Index<B> {
    bytes: B,
    header: HeaderRecord,
    tables: Tables,
}

/// Byte ranges of the tables, inside the file when it was opened.
#[derive(Clone)]
struct Tables {
    nodes: Range<usize>,
    entries: Range<usize>,
    extents: Range<usize>,
    chunks: Range<usize>,
    members: Range<usize>,
    xattrs: Range<usize>,
    strings: Range<usize>,
}

// === impl NodeId ===

impl NodeId {
    /// The root directory of a layer.
    pub const ROOT: Self = Self(NonZeroU32::MIN);

    /// The node with this number; there is no node 0.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// Position of the node's record in its table.
    const fn position(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Index ===

impl<B: AsRef<[u8]>> Index<B> {
    /// Opens the index in `bytes`. Reads the header, and checks that all tables are inside.
    pub fn parse(bytes: B) -> Result<Self, IndexError> {
        let (header, _) =
            HeaderRecord::read_from_prefix(bytes.as_ref()).map_err(|_| IndexError::NotAnIndex)?;
        if header.magic != MAGIC {
            return Err(IndexError::NotAnIndex);
        }
        if header.version.get() != VERSION {
            return Err(IndexError::OtherVersion { found: header.version.get() });
        }
        let tables = Tables::locate(&header, bytes.as_ref().len())
            .ok_or(IndexError::Damaged { what: "a table is outside of the file" })?;
        let index = Self { bytes, header, tables };
        match index.node(NodeId::ROOT)?.kind() {
            Kind::Dir => Ok(index),
            _ => Err(IndexError::Damaged { what: "the root is not a directory" }),
        }
    }

    /// Whether all bytes are those that were made. Reads them all.
    ///
    /// # Errors
    /// Some are not.
    pub fn check(&self) -> Result<(), IndexError> {
        match checksum(self.bytes.as_ref()) {
            Some(sum) if sum == self.header.checksum.get() => Ok(()),
            _ => Err(IndexError::Damaged { what: "the checksum is another" }),
        }
    }

    /// Size of the blob, in bytes.
    pub fn blob_size(&self) -> u64 {
        self.header.blob_size.get()
    }

    /// Where in the blob the TOC starts: the end of the last member with file contents.
    pub fn toc_offset(&self) -> u64 {
        self.header.toc_offset.get()
    }

    /// Digest of the TOC from which this index was built.
    pub fn toc_digest(&self) -> Digest {
        Digest::from_bytes(self.header.toc_digest)
    }

    /// Length of the content file, in bytes, with the gaps between files.
    pub fn content_len(&self) -> u64 {
        self.header.content_len.get()
    }

    /// Sum of the sizes of all regular files, in bytes, each node counted once.
    pub fn file_bytes(&self) -> u64 {
        self.header.file_bytes.get()
    }

    /// Number of nodes; their numbers are 1 to this.
    pub fn node_count(&self) -> u32 {
        self.nodes().len() as u32
    }

    /// Number of chunks; their numbers are 0 to below this.
    pub fn chunk_count(&self) -> u32 {
        self.chunks().len() as u32
    }

    /// End of what the image's author wants fetched first, as an offset in the blob: the place of the
    /// prefetch landmark. None when the layer has no such landmark.
    pub fn prefetch_end(&self) -> Option<u64> {
        Some(self.header.prefetch_end.get()).filter(|&end| end != 0)
    }

    /// Whether it is certain that no node has an extended attribute.
    pub fn has_no_xattrs(&self) -> bool {
        self.header.flags.get() & NO_XATTRS != 0
    }

    /// Whether it is certain that no directory is opaque.
    pub fn has_no_opaque(&self) -> bool {
        self.header.flags.get() & NO_OPAQUE != 0
    }

    /// Whether any node has a POSIX ACL (`system.posix_acl_access`, `system.posix_acl_default`).
    pub fn has_posix_acl(&self) -> bool {
        self.header.flags.get() & HAS_POSIX_ACL != 0
    }

    fn nodes(&self) -> &[NodeRecord] {
        self.table(&self.tables.nodes)
    }

    fn entry_records(&self) -> &[EntryRecord] {
        self.table(&self.tables.entries)
    }

    fn extents(&self) -> &[U32] {
        self.table(&self.tables.extents)
    }

    fn chunks(&self) -> &[ChunkRecord] {
        self.table(&self.tables.chunks)
    }

    fn members(&self) -> &[U64] {
        self.table(&self.tables.members)
    }

    fn xattr_records(&self) -> &[XattrRecord] {
        self.table(&self.tables.xattrs)
    }

    /// The records in a byte range. [`Self::parse`] made sure that the range fits; bytes that shrink
    /// later read as an empty table.
    fn table<R: Record>(&self, range: &Range<usize>) -> &[R] {
        self.bytes
            .as_ref()
            .get(range.clone())
            .and_then(|bytes| <[R]>::ref_from_bytes(bytes).ok())
            .unwrap_or_default()
    }

    fn string(&self, start: U32, len: usize) -> Result<&[u8], IndexError> {
        let strings: &[u8] = self.table(&self.tables.strings);
        run(strings, start, len).ok_or(IndexError::Damaged { what: "a string is outside of its table" })
    }
}

impl<B> fmt::Debug for Index<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("toc_digest", &Digest::from_bytes(self.header.toc_digest))
            .field("nodes", &self.header.nodes.count.get())
            .field("chunks", &self.header.chunks.count.get())
            .finish_non_exhaustive()
    }
}

// === impl Tables ===

impl Tables {
    fn locate(header: &HeaderRecord, len: usize) -> Option<Self> {
        // Node and chunk numbers have 32 bits.
        if header.nodes.count.get() > limits::NODES as u64
            || header.chunks.count.get() > limits::ENTRIES as u64
        {
            return None;
        }
        Some(Self {
            nodes: header.nodes.range::<NodeRecord>(len)?,
            entries: header.entries.range::<EntryRecord>(len)?,
            extents: header.extents.range::<U32>(len)?,
            chunks: header.chunks.range::<ChunkRecord>(len)?,
            members: header.members.range::<U64>(len)?,
            xattrs: header.xattrs.range::<XattrRecord>(len)?,
            strings: header.strings.range::<u8>(len)?,
        })
    }
}

/// `count` records of a table from `first` on, if the table has them all.
fn run<R>(table: &[R], first: U32, count: usize) -> Option<&[R]> {
    let first = first.get() as usize;
    table.get(first..first.checked_add(count)?)
}
