//! The name space of a layer while its TOC is read: which name in which directory stands for which node.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::{TocError, strings::Strings};

/// A node while a TOC is read: its position in the order of creation. The root is 0.
pub(super) type Slot = u32;

/// A name in a directory. It keeps its place when it comes to stand for another node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    pub dir: Slot,
    pub node: Slot,
    place: u32,
    len: u8,
}

/// All names, and how to find one. The hash is seeded: names come from strangers.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: Vec<Name>,
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Names {
    /// The number of the name `name` in `dir`.
    pub(super) fn find(&self, strings: &Strings, dir: Slot, name: &str) -> Option<u32> {
        self.table.find(self.hash(dir, name.as_bytes()), |&id| self.is(strings, id, dir, name)).copied()
    }

    /// Adds a name that [`Self::find`] did not find. At most [`crate::limits::NAME_LEN`] bytes.
    pub(super) fn add(
        &mut self,
        strings: &mut Strings,
        dir: Slot,
        name: &str,
        node: Slot,
    ) -> Result<u32, TocError> {
        let id = self.names.len() as u32;
        let place = strings.add(name.as_bytes())?;
        self.names.push(Name { dir, node, place, len: name.len() as u8 });
        let hash = self.hash(dir, name.as_bytes());
        let Self { names, table, hasher } = self;
        table.insert_unique(hash, id, |&id| {
            names.get(id as usize).map_or(0, |name| hasher.hash_one((name.dir, name.text(strings))))
        });
        Ok(id)
    }

    /// The name with this number.
    pub(super) fn get(&self, id: u32) -> Option<&Name> {
        self.names.get(id as usize)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Name> {
        self.names.get_mut(id as usize)
    }

    /// All names in the order in which they were added.
    pub(super) fn into_vec(self) -> Vec<Name> {
        self.names
    }

    /// All names in the order in which they were added.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Name> {
        self.names.iter()
    }

    pub(super) fn len(&self) -> u32 {
        self.names.len() as u32
    }

    fn is(&self, strings: &Strings, id: u32, dir: Slot, name: &str) -> bool {
        self.get(id).is_some_and(|found| found.dir == dir && found.text(strings) == name.as_bytes())
    }

    fn hash(&self, dir: Slot, name: &[u8]) -> u64 {
        self.hasher.hash_one((dir, name))
    }
}

impl Name {
    /// The text of the name.
    pub(super) fn text<'a>(&self, strings: &'a Strings) -> &'a [u8] {
        strings.get(self.place, usize::from(self.len))
    }
}
