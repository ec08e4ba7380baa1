//! Names: look-up and listing, in the root and in layers.
//!
//! Cookies of a listing are 1 for `.`, 2 for `..`, then 2 and the slot (in the root) or 2 and the position (in a
//! layer). They mean the same in every listing, whichever process answers.

use std::{ffi::OsStr, ops::ControlFlow, os::unix::ffi::OsStrExt};

use estargz::{Kind, NodeId};
use fuser::FileAttr;

use super::{Server, attr};
use crate::{Failure, Slot, ino::Inode};

const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// What a look-up found.
pub(super) enum Found {
    /// A directory of the root, not to be kept.
    Slot(FileAttr),
    /// A node of a layer, to be kept for ever.
    Node(FileAttr),
    /// A layer has no such name, and never will.
    Nothing,
}

/// An entry of a listing.
pub(super) struct Line<'a> {
    pub(super) inode: Inode,
    pub(super) kind: Kind,
    pub(super) name: &'a OsStr,
    pub(super) cookie: u64,
}

// === impl Server ===

impl Server {
    pub(super) fn find(&self, parent: Inode, name: &OsStr) -> Result<Found, Failure> {
        match parent {
            Inode::Root => self.find_slot(name),
            Inode::Layer(slot, dir) => self.find_node(slot, dir, name),
        }
    }

    fn find_slot(&self, name: &OsStr) -> Result<Found, Failure> {
        if name == "." || name == ".." {
            return Ok(Found::Slot(attr::of_root(&self.shared.layers.now())));
        }
        let slot = slot_named(name).ok_or(Failure::NoSuchName)?;
        if self.shared.layers.now().shown(slot).is_err() {
            return Err(Failure::NoSuchName);
        }
        Ok(Found::Slot(self.attributes(Inode::Layer(slot, NodeId::ROOT))?))
    }

    /// `.` and `..` come from file handles only (`open_by_handle_at`, overlayfs' origin): the kernel resolves them in
    /// paths by itself.
    fn find_node(&self, slot: Slot, dir: NodeId, name: &OsStr) -> Result<Found, Failure> {
        let layers = self.shared.layers.now();
        let shown = layers.shown(slot)?;
        let inode = match name.as_bytes() {
            b"." => Some(Inode::Layer(slot, dir)),
            b".." if dir == NodeId::ROOT => return Ok(Found::Slot(attr::of_root(&layers))),
            b".." => Some(Inode::Layer(slot, shown.parent(dir)?)),
            name => shown.lookup(slot, dir, name)?,
        };
        let Some(inode) = inode else { return Ok(Found::Nothing) };
        Ok(Found::Node(self.attributes(inode)?))
    }

    /// Shows the entries of a directory after the one with `cookie`, until `add` breaks off.
    pub(super) fn list(
        &self,
        dir: Inode,
        cookie: u64,
        add: &mut dyn FnMut(Line<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let dot = Line { inode: dir, kind: Kind::Dir, name: OsStr::new("."), cookie: DOT };
        if cookie < DOT && add(dot).is_break() {
            return Ok(());
        }
        if cookie < DOT_DOT {
            let inode = self.parent(dir)?;
            let line = Line { inode, kind: Kind::Dir, name: OsStr::new(".."), cookie: DOT_DOT };
            if add(line).is_break() {
                return Ok(());
            }
        }
        let seen = cookie.saturating_sub(DOT_DOT);
        match dir {
            Inode::Root => {
                self.list_slots(seen, add);
                Ok(())
            }
            Inode::Layer(slot, node) => self.list_nodes(slot, node, seen, add),
        }
    }

    fn parent(&self, dir: Inode) -> Result<Inode, Failure> {
        match dir {
            Inode::Root | Inode::Layer(_, NodeId::ROOT) => Ok(Inode::Root),
            Inode::Layer(slot, node) => {
                Ok(Inode::Layer(slot, self.shared.layers.now().shown(slot)?.parent(node)?))
            }
        }
    }

    fn list_slots(&self, seen: u64, add: &mut dyn FnMut(Line<'_>) -> ControlFlow<()>) {
        let Ok(seen) = u32::try_from(seen) else { return };
        for slot in self.shared.layers.now().after(Slot::new(seen)) {
            let name = slot.to_string();
            let line = Line {
                inode: Inode::Layer(slot, NodeId::ROOT),
                kind: Kind::Dir,
                name: OsStr::new(&name),
                cookie: DOT_DOT + u64::from(slot.get()),
            };
            if add(line).is_break() {
                return;
            }
        }
    }

    fn list_nodes(
        &self,
        slot: Slot,
        dir: NodeId,
        seen: u64,
        add: &mut dyn FnMut(Line<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let layers = self.shared.layers.now();
        layers.shown(slot)?.list(slot, dir, seen, &mut |entry| {
            add(Line {
                inode: entry.inode,
                kind: entry.kind,
                name: OsStr::from_bytes(entry.name),
                cookie: DOT_DOT + entry.position,
            })
        })
    }
}

/// The slot with this name: decimal, without sign or leading zeros, so that a layer has one name only.
fn slot_named(name: &OsStr) -> Option<Slot> {
    let name = name.to_str()?;
    let slot = Slot::new(name.parse().ok()?)?;
    (slot.to_string() == name).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_name() {
        assert_eq!(slot_named(OsStr::new("17")), Slot::new(17));
        assert_eq!(slot_named(OsStr::new("4294967295")), Slot::new(u32::MAX));
        for name in ["0", "+17", "017", " 17", "17 ", "", "4294967296", "-1", "x", "１７"] {
            assert_eq!(slot_named(OsStr::new(name)), None, "{name:?}");
        }
    }
}
