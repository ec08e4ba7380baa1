//! Directories: look-up by binary search, listing in the order of names.

use std::cmp::Ordering;

use super::{Index, IndexError, Kind, NodeId, layout::EntryRecord, run};
use crate::limits;

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name; never empty, `.` or `..`, never with a slash or NUL.
    pub name: &'a [u8],
    /// What the name stands for.
    pub node: NodeId,
    /// Kind of that node.
    pub kind: Kind,
    /// Where to go on: what to give to [`Index::entries`] to get the entries after this one.
    pub position: u64,
}

/// The entries of a directory, in the order of their names.
#[derive(Debug)]
pub struct Entries<'a, B> {
    index: &'a Index<B>,
    records: &'a [EntryRecord],
    next: usize,
}

impl<B: AsRef<[u8]>> Index<B> {
    /// The node with this name in the directory `dir`.
    pub fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>, IndexError> {
        let records = self.dir_records(dir)?;
        match self.search(records, name)? {
            Ok(position) => records.get(position).map(entry_node).transpose(),
            Err(_) => Ok(None),
        }
    }

    /// What to give to [`Index::entries`] to get the entries whose names come after `name`, which need not be there.
    pub fn position_after(&self, dir: NodeId, name: &[u8]) -> Result<u64, IndexError> {
        Ok(match self.search(self.dir_records(dir)?, name)? {
            Ok(position) => position as u64 + 1,
            Err(position) => position as u64,
        })
    }

    /// The entries of the directory `dir`, without `.` and `..`, sorted by name. `from` is 0 or the
    /// [`Entry::position`] of the last entry that was seen. Positions never change.
    pub fn entries(&self, dir: NodeId, from: u64) -> Result<Entries<'_, B>, IndexError> {
        let next = usize::try_from(from).unwrap_or(usize::MAX);
        Ok(Entries { index: self, records: self.dir_records(dir)?, next })
    }

    /// The path of the node's first name, without a leading slash; empty for the root.
    pub fn path(&self, id: NodeId) -> Result<Vec<u8>, IndexError> {
        let mut names = Vec::new();
        let mut node = self.node(id)?;
        // Paths are bounded, so a longer chain of parents is a cycle.
        while node.id() != NodeId::ROOT {
            if names.len() > limits::PATH_LEN / 2 {
                return Err(IndexError::Damaged { what: "a directory is above itself" });
            }
            let entry = node.record().entry.get() as usize;
            let record =
                self.entry_records().get(entry).ok_or(IndexError::Damaged { what: "a node has no name" })?;
            names.push(self.entry_name(record)?);
            node = self.node(node.parent())?;
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }

    /// Where `name` is, or where it would be.
    fn search(&self, records: &[EntryRecord], name: &[u8]) -> Result<Result<usize, usize>, IndexError> {
        let (mut low, mut high) = (0, records.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(record) = records.get(middle) else { break };
            match self.entry_name(record)?.cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Ok(middle)),
            }
        }
        Ok(Err(low))
    }

    fn dir_records(&self, dir: NodeId) -> Result<&[EntryRecord], IndexError> {
        let dir = self.node(dir)?.of_kind(Kind::Dir)?.record();
        run(self.entry_records(), dir.a, dir.b.get() as usize)
            .ok_or(IndexError::Damaged { what: "directory entries are outside of their table" })
    }

    fn entry_name(&self, record: &EntryRecord) -> Result<&[u8], IndexError> {
        self.string(record.name, usize::from(record.name_len))
    }
}

fn entry_node(record: &EntryRecord) -> Result<NodeId, IndexError> {
    NodeId::new(record.node.get()).ok_or(IndexError::Damaged { what: "an entry has no node" })
}

impl<'a, B: AsRef<[u8]>> Entries<'a, B> {
    fn entry(&self, record: &'a EntryRecord) -> Result<Entry<'a>, IndexError> {
        Ok(Entry {
            name: self.index.entry_name(record)?,
            node: entry_node(record)?,
            kind: Kind::from_byte(record.kind)
                .ok_or(IndexError::Damaged { what: "unknown kind of entry" })?,
            position: self.next as u64 + 1,
        })
    }
}

impl<'a, B: AsRef<[u8]>> Iterator for Entries<'a, B> {
    type Item = Result<Entry<'a>, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entry(self.records.get(self.next)?);
        self.next += 1;
        Some(entry)
    }
}
