//! The tree that a tar stream unpacks to, entry by entry.
//!
//! Invariants: whatever has entries below it is a directory or has no entry itself; every hard link's target
//! is a live entry, and following targets ends at the one entry of the group that holds the content.

use std::collections::{BTreeMap, HashMap};

use super::{Element, Entry, Part, PlanError, text};
use crate::write::tar::{Kind, header_blocks};

/// The place of an element in the stream.
pub(super) type Slot = usize;

/// What has been unpacked so far.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// All elements in stream order; `None` where an entry was replaced.
    pub(super) elements: Vec<Option<Element>>,
    /// Cleaned names of live entries.
    pub(super) names: BTreeMap<String, Slot>,
    /// The entry that holds a link's content.
    origins: HashMap<Slot, Slot>,
    /// The links of an entry that holds content, oldest first.
    links: HashMap<Slot, Vec<Slot>>,
}

// === impl Tree ===

impl Tree {
    /// Adds header blocks that belong to no entry.
    pub(super) fn add_blocks(&mut self, blocks: Part) {
        self.elements.push(Some(Element::Blocks(blocks)));
    }

    /// Unpacks one entry.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), PlanError> {
        let path = entry.path()?;
        if path.is_empty() && entry.header.kind != Kind::Directory {
            return Err(PlanError::Root { name: text(&entry.header.name).into_owned() });
        }
        self.check_ancestors(&path)?;
        self.make_room(&path, entry.header.kind);
        let slot = self.elements.len();
        if entry.header.kind == Kind::HardLink {
            let origin = self.resolve(&entry)?;
            self.origins.insert(slot, origin);
            self.links.entry(origin).or_default().push(slot);
        }
        self.names.insert(path, slot);
        self.elements.push(Some(Element::Entry(Box::new(entry))));
        Ok(())
    }

    /// The live entry in `slot`.
    pub(super) fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.elements.get(slot)?.as_ref()?.entry()
    }

    fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        match self.elements.get_mut(slot)?.as_mut()? {
            Element::Entry(entry) => Some(entry),
            Element::Blocks(_) => None,
        }
    }

    fn kind(&self, slot: Slot) -> Option<Kind> {
        self.entry(slot).map(|entry| entry.header.kind)
    }

    fn check_ancestors(&self, path: &str) -> Result<(), PlanError> {
        let ancestors = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        for ancestor in ancestors {
            let kind = self.names.get(ancestor).and_then(|&slot| self.kind(slot));
            if kind.is_some_and(|kind| kind != Kind::Directory) {
                return Err(PlanError::BelowFile { name: path.to_owned(), ancestor: ancestor.to_owned() });
            }
        }
        Ok(())
    }

    /// The entry that holds the content of a new hard link.
    fn resolve(&self, link: &Entry) -> Result<Slot, PlanError> {
        let target = self.names.get(&link.link_path()).copied();
        match target.filter(|&slot| self.kind(slot) != Some(Kind::Directory)) {
            Some(slot) => Ok(self.origins.get(&slot).copied().unwrap_or(slot)),
            None => Err(PlanError::HardLink {
                name: text(&link.header.name).into_owned(),
                target: text(&link.header.link_name).into_owned(),
            }),
        }
    }

    /// Removes what a new entry of this kind replaces.
    fn make_room(&mut self, path: &str, kind: Kind) {
        if let Some(slot) = self.names.remove(path) {
            self.unlink(slot, path);
        }
        if kind == Kind::Directory {
            return;
        }
        // `0` is the character after the slash, so this range is everything below the path.
        let below = self.names.range(format!("{path}/")..format!("{path}0"));
        let below: Vec<_> = below.map(|(name, &slot)| (name.clone(), slot)).collect();
        for (name, slot) in below {
            self.names.remove(&name);
            self.unlink(slot, &name);
        }
    }

    /// Takes the name `path` away from the entry in `slot`, whose file lives on under its other names.
    fn unlink(&mut self, slot: Slot, path: &str) {
        let removed = self.elements.get_mut(slot).and_then(Option::take);
        if let Some(origin) = self.origins.remove(&slot) {
            let Some(links) = self.links.get_mut(&origin) else { return };
            links.retain(|&link| link != slot);
            let links = links.clone();
            self.relink(&links, origin, |link| link.link_path() == path);
        } else if let Some(links) = self.links.remove(&slot)
            && let Some(Element::Entry(entry)) = removed
        {
            self.promote(*entry, &links);
        }
    }

    /// Gives the content of a removed entry to its oldest link.
    fn promote(&mut self, removed: Entry, links: &[Slot]) {
        let Some((&heir, rest)) = links.split_first() else { return };
        let Some(entry) = self.entry_mut(heir) else { return };
        let name = std::mem::take(&mut entry.header.name);
        *entry = removed;
        entry.header.name = name;
        entry.head = Part::Made(header_blocks(&entry.header).into());
        self.origins.remove(&heir);
        for &link in rest {
            self.origins.insert(link, heir);
        }
        if !rest.is_empty() {
            self.links.insert(heir, rest.to_vec());
        }
        self.relink(rest, heir, |_| true);
    }

    /// Makes those `links` that `which` selects point at the entry in `target`.
    fn relink(&mut self, links: &[Slot], target: Slot, which: impl Fn(&Entry) -> bool) {
        let Some(name) = self.entry(target).map(|entry| entry.header.name.clone()) else { return };
        for &link in links {
            if let Some(entry) = self.entry_mut(link).filter(|entry| which(entry)) {
                entry.header.link_name.clone_from(&name);
                entry.head = Part::Made(header_blocks(&entry.header).into());
            }
        }
    }
}
