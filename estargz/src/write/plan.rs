//! What goes into the blob, and in which order: the layer's entries after a walk over its tar stream.
//!
//! The plan's tree is the one that containerd unpacks from the same stream: a later entry replaces an earlier
//! one of the same name, with everything below it if it was a directory and the new one is not, and other
//! names of a replaced file keep the file. Places in the stream are kept, never payloads, so a plan's memory
//! grows with the number of entries only. Header blocks are copied as they are wherever that is right.

mod order;
mod tree;

use std::{io::Read, sync::Arc};

use super::{
    LANDMARK_CONTENT, NO_PREFETCH_LANDMARK, Options, PREFETCH_LANDMARK, TOC_NAME,
    piece::Pieces,
    tar::{Extent, Header, Item, Kind, Member, TarError, Walker, header_blocks, padding},
};
use crate::limits;
use tree::Tree;

/// Most bytes of holes in all sparse files of a layer together, in a tar stream of any length: they are written
/// out, and a few bytes may claim exabytes of them.
const MAX_HOLES: u64 = 64 << 30;

/// Why a layer cannot be an eStargz layer. It can still be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The stream is not a tar archive that can be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A table of contents is JSON, which cannot hold this name.
    #[error("{what} {name:?} is not UTF-8, which a table of contents cannot hold")]
    NotUtf8 {
        /// Which kind of name.
        what: &'static str,
        /// The name, with U+FFFD for what is not UTF-8.
        name: String,
    },
    /// The target of a hard link is not an earlier file of the layer.
    #[error("hard link {name:?} refers to {target:?}, which is not an earlier file of this layer")]
    HardLink {
        /// The link.
        name: String,
        /// Its target.
        target: String,
    },
    /// An entry below something that is not a directory: where it ends up depends on other layers.
    #[error("{name:?} lies below {ancestor:?}, which is not a directory in this layer")]
    BelowFile {
        /// The entry.
        name: String,
        /// What it lies below.
        ancestor: String,
    },
    /// The root of the layer is not a directory.
    #[error("entry {name:?} would make the layer's root something else than a directory")]
    Root {
        /// The entry.
        name: String,
    },
    /// Something that Linux has no room for.
    #[error("{name:?} has a {what} that is out of range")]
    OutOfRange {
        /// The entry.
        name: String,
        /// What is too large.
        what: &'static str,
    },
}

/// Bytes that a piece is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A range of the source stream.
    Source {
        /// Where in the uncompressed tar stream.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Zeros: padding, and the holes of sparse files.
    Zeros(u64),
    /// Bytes that the source does not have.
    Made(Arc<[u8]>),
}

/// The content of a regular file.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    /// In the source stream, from this place.
    Plain(u64),
    /// In the source stream, with holes.
    Sparse(Arc<[Extent]>),
    /// Not in the source stream.
    Made(Arc<[u8]>),
}

/// One entry of the layer.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its metadata; name, link target and attribute names are known to be UTF-8.
    pub(super) header: Header,
    /// Its header blocks.
    pub(super) head: Part,
    /// Its content, `header.size` bytes.
    pub(super) payload: Payload,
    /// A landmark's content begins a member, whatever the packing: its place in the blob ends the prefetched part.
    pub(super) landmark: bool,
}

/// What the blob is a sequence of.
#[derive(Debug, Clone)]
pub(super) enum Element {
    /// An entry.
    Entry(Box<Entry>),
    /// Header blocks that belong to no entry.
    Blocks(Part),
}

/// The entries of a layer in the order of the blob.
#[derive(Debug)]
pub struct Plan {
    pub(super) chunk_size: u64,
    pub(super) pack_size: u64,
    pub(super) elements: Vec<Element>,
    stream_end: u64,
    missed: Vec<String>,
    bytes: u64,
}

// === impl Plan ===

impl Plan {
    /// Walks an uncompressed tar stream. The caller keeps the stream's bytes: pieces refer to them.
    pub fn read(stream: impl Read, options: &Options) -> Result<Self, PlanError> {
        let mut walker = Walker::new(stream);
        let mut tree = Tree::default();
        let mut holes = 0_u64;
        while let Some(item) = walker.next_item()? {
            match item {
                Item::Global { start, end } => {
                    tree.add_blocks(Part::Source { offset: start, len: end - start })
                }
                Item::Member(member) => {
                    holes = holes.saturating_add(member.holes());
                    if holes > MAX_HOLES {
                        return Err(out_of_range(&member.header, "size"));
                    }
                    let entry = Entry::new(*member)?;
                    if ![TOC_NAME, PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK].contains(&entry.path()?.as_str())
                    {
                        tree.add(entry)?;
                    }
                }
            }
        }
        let ordered = order::order(tree, &options.prioritized);
        let elements = ordered.elements;
        let entries = elements.iter().filter_map(Element::entry);
        let bytes = entries.map(|entry| entry.header.size).fold(0, u64::saturating_add);
        Ok(Self {
            chunk_size: options.chunk_size.get(),
            pack_size: options.pack_size,
            elements,
            stream_end: walker.offset(),
            missed: ordered.missed,
            bytes,
        })
    }

    /// The independent pieces of the blob, in order.
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces::new(self)
    }

    /// Prioritized names that the layer does not have.
    pub fn missed(&self) -> &[String] {
        &self.missed
    }

    /// Bytes of content in all files together, for progress.
    pub fn content_bytes(&self) -> u64 {
        self.bytes
    }

    /// How many entries the layer has, its landmark included.
    pub fn entry_count(&self) -> usize {
        self.entries().count()
    }

    /// How many bytes of the source stream were read.
    pub fn stream_end(&self) -> u64 {
        self.stream_end
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.elements.iter().filter_map(Element::entry)
    }
}

// === impl Element ===

impl Element {
    fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Blocks(_) => None,
        }
    }
}

// === impl Entry ===

impl Entry {
    fn new(member: Member) -> Result<Self, PlanError> {
        let Member { header, start, payload, sparse, .. } = member;
        check_text(&header)?;
        check_ranges(&header)?;
        let head = match sparse {
            // The file is written out in full, which its own header blocks do not say.
            Some(_) => Part::Made(header_blocks(&header).into()),
            None => Part::Source { offset: start, len: payload - start },
        };
        let payload = sparse.map_or(Payload::Plain(payload), |extents| Payload::Sparse(extents.into()));
        Ok(Self { header, head, payload, landmark: false })
    }

    fn landmark(name: &str) -> Self {
        let content: Arc<[u8]> = [LANDMARK_CONTENT].into();
        let header = Header::regular(name, content.len() as u64);
        let head = Part::Made(header_blocks(&header).into());
        Self { header, head, payload: Payload::Made(content), landmark: true }
    }

    /// The cleaned name: components between single slashes, the root being empty.
    fn path(&self) -> Result<String, PlanError> {
        let path = clean(&text(&self.header.name));
        let too_long =
            path.split('/').any(|name| name.len() > limits::NAME_LEN) || path.len() > limits::PATH_LEN;
        if too_long { Err(out_of_range(&self.header, "name")) } else { Ok(path) }
    }

    fn link_path(&self) -> String {
        clean(&text(&self.header.link_name))
    }

    /// The parts of the content from `from`, `len` bytes.
    pub(super) fn content(&self, from: u64, len: u64) -> Vec<Part> {
        match &self.payload {
            Payload::Plain(start) => vec![Part::Source { offset: start + from, len }],
            Payload::Made(bytes) => vec![Part::Made(bytes.clone())],
            Payload::Sparse(extents) => sparse_content(extents, from, from + len),
        }
    }

    /// What fills the last block of the content. The source's own padding where there is one (an archive may
    /// end without), so that a piece is one range of the source.
    pub(super) fn padding(&self, stream_end: u64) -> Part {
        let len = padding(self.header.size);
        match &self.payload {
            Payload::Plain(start) if start + self.header.size + len <= stream_end => {
                Part::Source { offset: start + self.header.size, len }
            }
            _ => Part::Zeros(len),
        }
    }
}

/// The parts of a sparse file between two places in it.
fn sparse_content(extents: &[Extent], from: u64, to: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = from;
    let first = extents.partition_point(|extent| extent.at + extent.len <= from);
    for extent in extents.iter().skip(first).take_while(|extent| extent.at < to) {
        let start = extent.at.max(from);
        if start > at {
            parts.push(Part::Zeros(start - at));
        }
        let end = (extent.at + extent.len).min(to);
        parts.push(Part::Source { offset: extent.stored_at + (start - extent.at), len: end - start });
        at = end;
    }
    if at < to {
        parts.push(Part::Zeros(to - at));
    }
    parts
}

/// A name as a table of contents holds it; only called for names that were checked.
pub(super) fn text(name: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(name)
}

/// `name` without empty, `.` and `..` components, as containerd and the Go reader clean it.
fn clean(name: &str) -> String {
    let mut components = Vec::new();
    for component in name.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            _ => components.push(component),
        }
    }
    components.join("/")
}

fn check_text(header: &Header) -> Result<(), PlanError> {
    let check = |what, name: &[u8]| match std::str::from_utf8(name) {
        Ok(_) => Ok(()),
        Err(_) => Err(PlanError::NotUtf8 { what, name: String::from_utf8_lossy(name).into_owned() }),
    };
    check("the name", &header.name)?;
    if matches!(header.kind, Kind::HardLink | Kind::Symlink) {
        check("the link target", &header.link_name)?;
    }
    header.xattrs.keys().try_for_each(|name| check("the extended attribute", name))
}

fn check_ranges(header: &Header) -> Result<(), PlanError> {
    let limits = [
        ("mode", header.mode, 0o7_777_777),
        ("user id", header.uid, limits::ID.into()),
        ("group id", header.gid, limits::ID.into()),
        ("device number", header.dev_major, u32::MAX.into()),
        ("device number", header.dev_minor, u32::MAX.into()),
        ("size", header.size, i64::MAX as u64),
    ];
    match limits.into_iter().find(|(_, value, limit)| value > limit) {
        Some((what, ..)) => Err(out_of_range(header, what)),
        None => Ok(()),
    }
}

fn out_of_range(header: &Header, what: &'static str) -> PlanError {
    PlanError::OutOfRange { name: text(&header.name).chars().take(100).collect(), what }
}

#[cfg(test)]
mod tests;
