//! The layout of an index file: a header, then tables of fixed-size records, then strings.
//!
//! All numbers are little-endian and unaligned. A change of any record or of the meaning of a field
//! needs a new [`VERSION`]; readers refuse other versions and the index is built again from the TOC.

use std::ops::Range;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{I64, U16, U32, U64},
};

/// First bytes of every index file.
pub(crate) const MAGIC: [u8; 8] = *b"starlidx";
/// Version of the layout.
pub(crate) const VERSION: u32 = 2;

/// Header flag: some node has a POSIX ACL.
pub(crate) const HAS_POSIX_ACL: u32 = 1;
/// Header flag: no node has an extended attribute.
pub(crate) const NO_XATTRS: u32 = 2;
/// Header flag: no directory is opaque.
pub(crate) const NO_OPAQUE: u32 = 4;
/// Node flag: the directory hides what lower layers have under its name.
pub(crate) const OPAQUE: u8 = 1;

/// Where a table is.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct TableRecord {
    /// First byte, counted from the start of the file.
    pub offset: U64,
    /// Number of records.
    pub count: U64,
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct HeaderRecord {
    pub magic: [u8; 8],
    pub version: U32,
    pub flags: U32,
    pub blob_size: U64,
    pub toc_offset: U64,
    pub toc_digest: [u8; 32],
    /// Length of the content file.
    pub content_len: U64,
    /// Sum of the sizes of all regular files.
    pub file_bytes: U64,
    /// Offset of the prefetch landmark in the blob; 0 if there is none.
    pub prefetch_end: U64,
    pub nodes: TableRecord,
    pub entries: TableRecord,
    pub extents: TableRecord,
    pub chunks: TableRecord,
    pub members: TableRecord,
    pub xattrs: TableRecord,
    pub strings: TableRecord,
    /// CRC-32 of all of the file but this field. Last in the header.
    pub checksum: U32,
}

/// What an index file's checksum should be; none if the file has no whole header.
pub(crate) fn checksum(file: &[u8]) -> Option<u32> {
    let (header, rest) = file.split_at_checked(size_of::<HeaderRecord>())?;
    let (header, _) = header.split_last_chunk::<{ size_of::<U32>() }>()?;
    let mut checksum = libdeflater::Crc::new();
    checksum.update(header);
    checksum.update(rest);
    Some(checksum.sum())
}

/// A file, directory, link or device. Node `n` is record `n - 1`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct NodeRecord {
    pub kind: u8,
    pub flags: u8,
    /// Permissions with set-user-id, set-group-id and sticky bits.
    pub perm: U16,
    pub uid: U32,
    pub gid: U32,
    pub nlink: U32,
    pub mtime_sec: I64,
    pub mtime_nsec: U32,
    /// Directory that holds the node's first name; the root is its own.
    pub parent: U32,
    /// Directory entry of that first name; without meaning for the root.
    pub entry: U32,
    pub xattr_first: U32,
    pub xattr_count: U32,
    /// Directory: first entry. Regular file: first extent. Symbolic link: target's place in the
    /// strings. Device: major number.
    pub a: U32,
    /// Directory: number of entries. Regular file: number of extents. Symbolic link: target's length.
    /// Device: minor number.
    pub b: U32,
    pub size: U64,
    /// Where in the content file, in units of [`crate::limits::CONTENT_ALIGN`]. Nodes without content
    /// repeat where the next content goes, so that the column never falls.
    pub content_page: U32,
}

/// A name in a directory. A directory's entries are contiguous and sorted by name.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct EntryRecord {
    pub node: U32,
    pub name: U32,
    pub name_len: u8,
    /// The node's kind again: listing a directory reads no node.
    pub kind: u8,
    pub reserved: [u8; 2],
}

/// A chunk of a regular file. Sorted by (member, inner offset).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct ChunkRecord {
    pub digest: [u8; 32],
    pub member: U32,
    pub node: U32,
    pub inner_offset: U64,
    pub content_offset: U64,
    pub len: U64,
}

/// An extended attribute. A node's attributes are contiguous and sorted by name.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct XattrRecord {
    pub name: U32,
    pub name_len: U32,
    pub value: U32,
    pub value_len: U32,
}

/// A record that fills a table.
pub(crate) trait Record: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned {}

impl Record for NodeRecord {}
impl Record for EntryRecord {}
impl Record for ChunkRecord {}
impl Record for XattrRecord {}
/// Extents (chunk numbers in file order).
impl Record for U32 {}
/// Members (offsets in the blob, rising).
impl Record for U64 {}
/// Strings.
impl Record for u8 {}

impl TableRecord {
    /// The bytes of the table of `R` in a file of `file_len` bytes, if they are inside of it.
    pub(crate) fn range<R: Record>(&self, file_len: usize) -> Option<Range<usize>> {
        let start = usize::try_from(self.offset.get()).ok()?;
        let len = usize::try_from(self.count.get()).ok()?.checked_mul(size_of::<R>())?;
        let end = start.checked_add(len)?;
        (end <= file_len).then_some(start..end)
    }
}
