//! From the tree to the tables of an index file.
//!
//! What was replaced is left out, the rest is numbered in the order of its creation, which is the order of the TOC
//! and so of the blob: content that is close in the blob is close in the content file. The big lists of the tree
//! are dropped one by one as their tables are filled.

use zerocopy::{
    FromBytes, IntoBytes,
    little_endian::{U32, U64},
};

use super::{
    TocError,
    content::{self, TocChunk},
    links,
    names::{Name, Slot},
    strings::Strings,
    tree::{POSIX_ACL, Tree, WHITEOUT},
};
use crate::{
    Digest,
    index::{
        Kind,
        layout::{
            ChunkRecord, EntryRecord, HAS_POSIX_ACL, HeaderRecord, MAGIC, NO_OPAQUE, NO_XATTRS, NodeRecord,
            OPAQUE, Record, TableRecord, VERSION, XattrRecord, checksum,
        },
    },
    limits,
};

/// What the header says of the blob.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blob {
    pub size: u64,
    pub toc_offset: u64,
    pub toc_digest: Digest,
}

/// Makes the bytes of the index file.
pub(super) fn assemble(mut tree: Tree, blob: Blob) -> Result<Vec<u8>, TocError> {
    let shown = find_shown(&mut tree)?;
    let members = sort_members(std::mem::take(&mut tree.contents.members));
    let order = order_chunks(&tree.contents.chunks, &shown);
    check_chunks(&tree, &order, &members, blob.toc_offset)?;

    let numbers = number(&shown);
    let mut totals = Totals::default();
    let names = sort_names(tree.names.into_vec(), &shown, &numbers, &tree.strings);
    link_names(&mut tree.nodes, &names, &numbers);
    lay_out(&mut tree.nodes, &mut tree.contents.chunks, &shown, &mut totals)?;

    let xattrs = tree.xattrs.into_records();
    let flags = [
        (totals.has_posix_acl, HAS_POSIX_ACL),
        (xattrs.is_empty(), NO_XATTRS),
        (!totals.has_opaque, NO_OPAQUE),
    ];
    let flags = flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag);
    let sources = Sources {
        nodes: tree.nodes,
        names,
        chunks: tree.contents.chunks,
        members,
        xattrs,
        strings: tree.strings,
    };
    Ok(write(
        sources,
        &shown,
        &numbers,
        &order,
        HeaderRecord {
            magic: MAGIC,
            version: U32::new(VERSION),
            flags: U32::new(flags),
            blob_size: U64::new(blob.size),
            toc_offset: U64::new(blob.toc_offset),
            toc_digest: *blob.toc_digest.as_bytes(),
            content_len: U64::new(totals.pages * limits::CONTENT_ALIGN),
            file_bytes: U64::new(totals.file_bytes),
            prefetch_end: U64::new(if tree.prefetch_end < blob.toc_offset { tree.prefetch_end } else { 0 }),
            ..HeaderRecord::default()
        },
    ))
}

/// What there is of everything.
#[derive(Debug, Default)]
struct Totals {
    pages: u64,
    file_bytes: u64,
    has_posix_acl: bool,
    has_opaque: bool,
}

/// Which nodes can be reached from the root. Resolves the hard links on the way.
fn find_shown(tree: &mut Tree) -> Result<Vec<bool>, TocError> {
    let mut shown = vec![false; tree.nodes.len()];
    // A directory is created after the one that it is in.
    for slot in 0..tree.nodes.len() {
        let node = tree.node(slot as Slot);
        if node.kind == Kind::Dir as u8 {
            let name = tree.names.get(node.entry.get());
            let is_shown =
                slot == 0 || name.is_some_and(|name| name.node == slot as Slot && is_in(&shown, name.dir));
            shown.get_mut(slot).into_iter().for_each(|shown| *shown = is_shown);
        }
    }
    links::resolve(tree, |dir| is_in(&shown, dir))?;
    for name in tree.names.iter() {
        if is_in(&shown, name.dir) {
            shown.get_mut(name.node as usize).into_iter().for_each(|shown| *shown = true);
        }
    }
    Ok(shown)
}

fn is_in(shown: &[bool], slot: Slot) -> bool {
    shown.get(slot as usize).copied().unwrap_or(false)
}

fn at(numbers: &[u32], slot: Slot) -> u32 {
    numbers.get(slot as usize).copied().unwrap_or(0)
}

fn sort_members(mut members: Vec<u64>) -> Vec<u64> {
    members.sort_unstable();
    members.dedup();
    members
}

/// The chunks of shown files in blob order, as positions in the TOC's order.
fn order_chunks(chunks: &[TocChunk], shown: &[bool]) -> Vec<u32> {
    let mut order: Vec<u32> =
        (0u32..).zip(chunks).filter(|(_, chunk)| is_in(shown, chunk.node)).map(|(id, _)| id).collect();
    let key = |id: &u32| chunks.get(*id as usize).map(|chunk| (chunk.offset, chunk.inner_offset, *id));
    order.sort_unstable_by_key(key);
    order
}

fn check_chunks(tree: &Tree, order: &[u32], members: &[u64], toc_offset: u64) -> Result<(), TocError> {
    let mut next = 0;
    for chunk in order.iter().filter_map(|&id| tree.contents.chunks.get(id as usize)) {
        while members.get(next).is_some_and(|&start| start <= chunk.offset) {
            next += 1;
        }
        let end = members.get(next).copied().unwrap_or(toc_offset);
        content::check_ratio(chunk, end - chunk.offset)
            .map_err(|problem| TocError::entry(&tree.path_of(chunk.node), problem))?;
    }
    Ok(())
}

/// The number of each shown node, 0 for others.
fn number(shown: &[bool]) -> Vec<u32> {
    let mut last = 0;
    shown
        .iter()
        .map(|&shown| {
            if shown {
                last += 1;
                last
            } else {
                0
            }
        })
        .collect()
}

/// The names in shown directories, directory by directory, sorted by text.
fn sort_names(mut names: Vec<Name>, shown: &[bool], numbers: &[u32], strings: &Strings) -> Vec<Name> {
    names.retain(|name| is_in(shown, name.dir));
    names.sort_unstable_by(|a, b| {
        at(numbers, a.dir).cmp(&at(numbers, b.dir)).then_with(|| a.text(strings).cmp(b.text(strings)))
    });
    names
}

/// Gives directories their entries, and all nodes their link counts and the place of their first name.
fn link_names(nodes: &mut [NodeRecord], names: &[Name], numbers: &[u32]) {
    for node in nodes.iter_mut() {
        node.nlink = U32::new(if node.kind == Kind::Dir as u8 { 2 } else { 0 });
    }
    if let Some(root) = nodes.first_mut() {
        root.parent = U32::new(at(numbers, 0));
    }
    for (entry, name) in (0u32..).zip(names) {
        let Some(node) = nodes.get_mut(name.node as usize) else { continue };
        let is_dir = node.kind == Kind::Dir as u8;
        if is_dir || node.nlink == 0 {
            (node.parent, node.entry) = (at(numbers, name.dir).into(), entry.into());
        }
        if !is_dir {
            node.nlink += 1;
        }
        let Some(dir) = nodes.get_mut(name.dir as usize) else { continue };
        if dir.b == 0 {
            dir.a = entry.into();
        }
        dir.b += 1;
        if is_dir {
            dir.nlink += 1;
        }
    }
}

/// Gives files and chunks their place in the content file.
fn lay_out(
    nodes: &mut [NodeRecord],
    chunks: &mut [TocChunk],
    shown: &[bool],
    totals: &mut Totals,
) -> Result<(), TocError> {
    const PAGES: u64 = limits::CONTENT_LEN / limits::CONTENT_ALIGN;
    for (node, _) in nodes.iter_mut().zip(shown).filter(|(_, shown)| **shown) {
        totals.has_posix_acl |= node.flags & POSIX_ACL != 0;
        totals.has_opaque |= node.flags & OPAQUE != 0;
        node.flags &= !(POSIX_ACL | WHITEOUT);
        node.content_page = U32::new(totals.pages as u32);
        if node.kind != Kind::Reg as u8 {
            continue;
        }
        let start = totals.pages * limits::CONTENT_ALIGN;
        let first = node.a.get() as usize;
        for chunk in chunks.get_mut(first..first + node.b.get() as usize).unwrap_or_default() {
            chunk.file_offset += start;
        }
        totals.pages = totals.pages.saturating_add(node.size.get().div_ceil(limits::CONTENT_ALIGN));
        if totals.pages > PAGES {
            return Err(TocError::TooMuch { what: "bytes of content", limit: limits::CONTENT_LEN });
        }
        totals.file_bytes += node.size.get();
    }
    Ok(())
}

/// What the tables are filled from.
struct Sources {
    nodes: Vec<NodeRecord>,
    names: Vec<Name>,
    chunks: Vec<TocChunk>,
    members: Vec<u64>,
    xattrs: Vec<XattrRecord>,
    strings: Strings,
}

/// The strings table while it is filled, in the order in which the records are.
struct StringTable<'a> {
    from: &'a Strings,
    out: &'a mut [u8],
    len: usize,
}

fn write(
    sources: Sources,
    shown: &[bool],
    numbers: &[u32],
    order: &[u32],
    mut header: HeaderRecord,
) -> Vec<u8> {
    let Sources { nodes, names, chunks, members, xattrs, strings } = sources;
    let symlinks =
        nodes.iter().zip(shown).filter(|(node, shown)| **shown && node.kind == Kind::Symlink as u8);
    let strings_len = names.iter().map(|name| name.text(&strings).len()).sum::<usize>()
        + symlinks.map(|(node, _)| node.b.get() as usize).sum::<usize>()
        + xattrs.iter().map(|xattr| (xattr.name_len.get() + xattr.value_len.get()) as usize).sum::<usize>();

    let mut end = size_of::<HeaderRecord>();
    header.nodes = place::<NodeRecord>(&mut end, numbers.iter().filter(|&&number| number != 0).count());
    header.entries = place::<EntryRecord>(&mut end, names.len());
    header.extents = place::<U32>(&mut end, order.len());
    header.chunks = place::<ChunkRecord>(&mut end, order.len());
    header.members = place::<U64>(&mut end, members.len());
    header.xattrs = place::<XattrRecord>(&mut end, xattrs.len());
    header.strings = place::<u8>(&mut end, strings_len);

    // Zeroed memory is mapped when it is written to: what was dropped by then pays for it.
    let mut file = vec![0; end];
    let mut rest = file.as_mut_slice();
    table(&mut rest, 1).copy_from_slice(&[header]);
    let node_table = table::<NodeRecord>(&mut rest, header.nodes.count.get() as usize);
    let entry_table = table::<EntryRecord>(&mut rest, names.len());
    let extent_table = table::<U32>(&mut rest, order.len());
    let chunk_table = table::<ChunkRecord>(&mut rest, order.len());
    let member_table = table::<U64>(&mut rest, members.len());
    let xattr_table = table::<XattrRecord>(&mut rest, xattrs.len());
    let mut string_table = StringTable { from: &strings, out: rest, len: 0 };

    fill_entries(entry_table, names, &nodes, numbers, &mut string_table);
    fill_extents(extent_table, &nodes, shown, order, chunks.len());
    fill_nodes(node_table, nodes, shown, &mut string_table);
    fill_chunks(chunk_table, chunks, order, &members, numbers);
    for (record, offset) in member_table.iter_mut().zip(members) {
        *record = offset.into();
    }
    for (record, xattr) in xattr_table.iter_mut().zip(xattrs) {
        let (name, value) = (
            string_table.copy(xattr.name, xattr.name_len.get() as usize),
            string_table.copy(xattr.value, xattr.value_len.get() as usize),
        );
        *record = XattrRecord { name, value, ..xattr };
    }
    seal(&mut file);
    file
}

/// Puts the checksum of everything else into the header's last field.
fn seal(file: &mut [u8]) {
    let sum = checksum(file).unwrap_or_default();
    if let Some((header, _)) = file.split_at_mut_checked(size_of::<HeaderRecord>())
        && let Some(field) = header.last_chunk_mut()
    {
        *field = sum.to_le_bytes();
    }
}

/// The place of a table of `count` records behind what ends at `end`.
fn place<R: Record>(end: &mut usize, count: usize) -> TableRecord {
    let offset = *end;
    *end += count * size_of::<R>();
    TableRecord { offset: U64::new(offset as u64), count: U64::new(count as u64) }
}

/// Takes the next `count` records off the front of `rest`.
fn table<'a, R: FromBytes + IntoBytes + zerocopy::KnownLayout>(
    rest: &mut &'a mut [u8],
    count: usize,
) -> &'a mut [R] {
    let (table, behind) = std::mem::take(rest).split_at_mut(count * size_of::<R>());
    *rest = behind;
    <[R]>::mut_from_bytes(table).unwrap_or_default()
}

fn fill_entries(
    table: &mut [EntryRecord],
    names: Vec<Name>,
    nodes: &[NodeRecord],
    numbers: &[u32],
    strings: &mut StringTable<'_>,
) {
    for (record, name) in table.iter_mut().zip(names) {
        let text = name.text(strings.from);
        *record = EntryRecord {
            node: at(numbers, name.node).into(),
            name: strings.add(text),
            name_len: text.len() as u8,
            kind: nodes.get(name.node as usize).map_or(0, |node| node.kind),
            reserved: [0; 2],
        };
    }
}

fn fill_extents(table: &mut [U32], nodes: &[NodeRecord], shown: &[bool], order: &[u32], chunks: usize) {
    let mut ranks = vec![0; chunks];
    for (rank, &chunk) in (0u32..).zip(order) {
        ranks.get_mut(chunk as usize).into_iter().for_each(|slot| *slot = rank);
    }
    let files = nodes.iter().zip(shown).filter(|(node, shown)| **shown && node.kind == Kind::Reg as u8);
    let in_file_order = files.flat_map(|(node, _)| {
        let first = node.a.get() as usize;
        ranks.get(first..first + node.b.get() as usize).unwrap_or_default()
    });
    for (record, &rank) in table.iter_mut().zip(in_file_order) {
        *record = rank.into();
    }
}

fn fill_nodes(
    table: &mut [NodeRecord],
    nodes: Vec<NodeRecord>,
    shown: &[bool],
    strings: &mut StringTable<'_>,
) {
    let mut extents = 0;
    let nodes = nodes.into_iter().zip(shown).filter(|(_, shown)| **shown);
    for (record, (mut node, _)) in table.iter_mut().zip(nodes) {
        if node.kind == Kind::Symlink as u8 {
            node.a = strings.copy(node.a, node.b.get() as usize);
        }
        if node.kind == Kind::Reg as u8 {
            node.a = U32::new(extents);
            extents += node.b.get();
        }
        *record = node;
    }
}

fn fill_chunks(
    table: &mut [ChunkRecord],
    chunks: Vec<TocChunk>,
    order: &[u32],
    members: &[u64],
    numbers: &[u32],
) {
    let mut member = 0;
    let in_order = order.iter().filter_map(|&id| chunks.get(id as usize));
    for (record, chunk) in table.iter_mut().zip(in_order) {
        while members.get(member).is_some_and(|&start| start < chunk.offset) {
            member += 1;
        }
        *record = ChunkRecord {
            digest: *chunk.digest.as_bytes(),
            member: U32::new(member as u32),
            node: at(numbers, chunk.node).into(),
            inner_offset: chunk.inner_offset.into(),
            content_offset: chunk.file_offset.into(),
            len: chunk.len.into(),
        };
    }
}

impl StringTable<'_> {
    fn add(&mut self, string: &[u8]) -> U32 {
        let start = self.len;
        self.len += string.len();
        self.out.get_mut(start..self.len).into_iter().for_each(|out| out.copy_from_slice(string));
        U32::new(start as u32)
    }

    /// Adds what is at `place` in the strings of the tree.
    fn copy(&mut self, place: U32, len: usize) -> U32 {
        self.add(self.from.get(place.get(), len))
    }
}
