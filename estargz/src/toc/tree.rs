//! The tree of a layer while its TOC is read, entry by entry, as unpacking the tar in that order would make it.
//!
//! - A later entry of the same name replaces an earlier one, with all that was below it; a directory that is named
//!   again takes the new attributes and keeps its content.
//! - Directories without an entry of their own are made on the way: root's, mode 0755.
//! - Whiteouts become what overlayfs knows: `.wh.x` a character device 0:0 named `x`, unless the layer has an `x`
//!   of its own; `.wh..wh..opq` marks its directory. No name that starts with `.wh.` is kept.
//! - Landmarks and the TOC itself are kept out of the root directory.
//!
//! What becomes of it is in `assemble.rs`.

use zerocopy::little_endian::{I64, U16, U32, U64};

use super::{
    Problem, TocError,
    content::{Contents, bounded},
    entry::{Entry, Type},
    error::Refusal,
    names::{Names, Slot},
    path, section,
    strings::Strings,
    xattrs::{XattrSet, XattrSets},
};
use crate::{
    index::{
        Kind,
        layout::{NodeRecord, OPAQUE},
    },
    limits,
};

/// The kind of a hard link whose target has not come yet. Not in an index.
pub(super) const PENDING_LINK: u8 = 0xff;
/// Flag of a node that a whiteout made: any other entry of that name wins. Not in an index.
pub(super) const WHITEOUT: u8 = 0x80;
/// Flag of a node with a POSIX ACL. Not in an index.
pub(super) const POSIX_ACL: u8 = 0x40;

const ROOT: Slot = 0;
const WHITEOUT_PREFIX: &str = ".wh.";
const OPAQUE_MARK: &str = ".wh..opq";
const PREFETCH_LANDMARK: &str = ".prefetch.landmark";
const NO_PREFETCH_LANDMARK: &str = ".no.prefetch.landmark";

/// What the entries so far made.
#[derive(Debug)]
pub(super) struct Tree {
    /// Nodes in the order of creation, replaced ones among them. A directory's `entry` is the number of its
    /// name, and that of a pending link or symbolic link has its target as `a` and `b`.
    pub nodes: Vec<NodeRecord>,
    pub names: Names,
    pub strings: Strings,
    pub xattrs: XattrSets,
    pub contents: Contents,
    /// Offset of the prefetch landmark; 0 if there is none.
    pub prefetch_end: u64,
    entries: usize,
    steps: u64,
    /// The directory that was looked for last: entries come directory by directory.
    last_dir: (String, Slot),
}

/// What a name says about itself.
enum Meaning<'a> {
    Root,
    Hidden,
    Opaque,
    Whiteout(&'a str),
    Node(&'a str),
}

impl Tree {
    /// A tree with an empty root directory. Content lies before `toc_offset` in the blob.
    pub(super) fn new(toc_offset: u64) -> Self {
        Self {
            nodes: vec![directory(ROOT, 0)],
            names: Names::default(),
            strings: Strings::default(),
            xattrs: XattrSets::default(),
            contents: Contents::new(toc_offset),
            prefetch_end: 0,
            entries: 0,
            steps: 0,
            last_dir: (String::new(), ROOT),
        }
    }

    /// Adds an entry.
    pub(super) fn add(&mut self, mut entry: Entry) -> Result<(), TocError> {
        self.entries += 1;
        if self.entries > limits::ENTRIES {
            return Err(TocError::TooMuch { what: "entries", limit: limits::ENTRIES as u64 });
        }
        if entry.kind == Type::Chunk {
            return self
                .contents
                .chunk(&entry)
                .map_err(|problem| TocError::entry(self.contents.name_of(&entry), problem));
        }
        self.end_file()?;
        let name = entry.name.clone();
        self.add_named(&mut entry, &name).map_err(|refusal| refusal.of(&name))
    }

    /// To be called after the last entry.
    pub(super) fn finish(&mut self) -> Result<(), TocError> {
        self.end_file()
    }

    /// The node at `path`, if there is one, whatever it is.
    pub(super) fn find(&mut self, path: &str) -> Result<Option<Slot>, TocError> {
        let mut slot = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            self.step()?;
            let Some(id) = self.names.find(&self.strings, slot, name) else { return Ok(None) };
            slot = self.names.get(id).map_or(ROOT, |name| name.node);
        }
        Ok(Some(slot))
    }

    pub(super) fn node(&self, slot: Slot) -> NodeRecord {
        self.nodes.get(slot as usize).copied().unwrap_or_default()
    }

    /// The path of a node, for messages: any of its names.
    pub(super) fn path_of(&self, slot: Slot) -> String {
        let mut parts = Vec::new();
        let mut name = self.names.iter().find(|name| name.node == slot);
        while let Some(part) = name.filter(|_| parts.len() < limits::PATH_LEN) {
            parts.push(String::from_utf8_lossy(part.text(&self.strings)));
            name = self.names.get(self.node(part.dir).entry.get()).filter(|_| part.dir != ROOT);
        }
        parts.reverse();
        parts.join("/")
    }

    fn node_mut(&mut self, slot: Slot) -> Option<&mut NodeRecord> {
        self.nodes.get_mut(slot as usize)
    }

    fn add_named(&mut self, entry: &mut Entry, name: &str) -> Result<(), Refusal> {
        let path = path::clean(name)?;
        let (dir, last) = path::split(&path);
        let meaning = meaning(dir, last);
        if let (Meaning::Hidden, "", PREFETCH_LANDMARK) = (&meaning, dir, last) {
            self.prefetch_end = u64::try_from(entry.offset).unwrap_or(0);
        }
        if entry.kind == Type::Reg && !matches!(meaning, Meaning::Node(_)) {
            self.contents.begin_hidden(entry);
        }
        match meaning {
            Meaning::Hidden => Ok(()),
            Meaning::Root if entry.kind == Type::Dir => self.set_attributes(ROOT, entry),
            Meaning::Root => Err(Problem::Nonsense("is the root but not a directory").into()),
            Meaning::Opaque => {
                let dir = self.directory(dir)?;
                self.node_mut(dir).into_iter().for_each(|dir| dir.flags |= OPAQUE);
                Ok(())
            }
            Meaning::Whiteout(name) => {
                let dir = self.directory(dir)?;
                self.add_whiteout(dir, name)
            }
            Meaning::Node(name) if entry.kind == Type::Hardlink => {
                self.add_hard_link(entry, &path, dir, name)
            }
            Meaning::Node(name) => {
                let dir = self.directory(dir)?;
                self.add_node(entry, dir, name)
            }
        }
    }

    fn add_node(&mut self, entry: &mut Entry, dir: Slot, name: &str) -> Result<(), Refusal> {
        if entry.kind == Type::Dir {
            let slot = self.directory_in(dir, name, true)?;
            return self.set_attributes(slot, entry);
        }
        let mut node = NodeRecord { nlink: U32::new(1), ..NodeRecord::default() };
        node.kind = match &entry.kind {
            Type::Reg => Kind::Reg,
            Type::Symlink => Kind::Symlink,
            Type::Char => Kind::Char,
            Type::Block => Kind::Block,
            Type::Fifo => Kind::Fifo,
            Type::Unknown(text) => return Err(Problem::UnknownType(text.clone()).into()),
            Type::Dir | Type::Hardlink | Type::Chunk => {
                return Err(Problem::Nonsense("is of a type that does not fit").into());
            }
        } as u8;
        if entry.kind == Type::Symlink {
            path::check_target(&entry.link_name)?;
            self.set_target(&mut node, &entry.link_name)?;
            node.size = U64::new(entry.link_name.len() as u64);
        }
        if matches!(entry.kind, Type::Char | Type::Block) {
            node.a = bounded("its major device number", entry.dev_major, limits::DEVICE_MAJOR)?.into();
            node.b = bounded("its minor device number", entry.dev_minor, limits::DEVICE_MINOR)?.into();
        }
        let slot = self.push(node)?;
        self.set_attributes(slot, entry)?;
        self.bind(dir, name, slot)?;
        if entry.kind == Type::Reg {
            self.contents.begin(entry, slot)?;
        }
        Ok(())
    }

    /// Adds a name of a node that is there, as a tar has it; one whose target is not (yet) there waits for the end.
    fn add_hard_link(&mut self, entry: &Entry, own: &str, dir: &str, name: &str) -> Result<(), Refusal> {
        let target = path::clean(&entry.link_name)?;
        if target == own {
            return Err(Problem::LinkCycle.into());
        }
        let dir = self.directory(dir)?;
        let found = self.find(&target)?.map(|slot| (slot, self.node(slot)));
        let slot = match found {
            Some((_, node)) if node.kind == Kind::Dir as u8 => {
                return Err(Problem::Nonsense("is a hard link to a directory").into());
            }
            Some((slot, node)) if node.kind != PENDING_LINK && node.flags & WHITEOUT == 0 => slot,
            _ => {
                let mut node = NodeRecord { kind: PENDING_LINK, ..NodeRecord::default() };
                self.set_target(&mut node, &target)?;
                self.push(node)?
            }
        };
        self.bind(dir, name, slot)?;
        Ok(())
    }

    fn add_whiteout(&mut self, dir: Slot, name: &str) -> Result<(), Refusal> {
        if self.names.find(&self.strings, dir, name).is_some() {
            return Ok(());
        }
        let slot = self.push(NodeRecord {
            kind: Kind::Char as u8,
            flags: WHITEOUT,
            nlink: U32::new(1),
            ..NodeRecord::default()
        })?;
        self.names.add(&mut self.strings, dir, name, slot)?;
        Ok(())
    }

    /// The directory at a cleaned path, made with all above it where missing.
    fn directory(&mut self, path: &str) -> Result<Slot, Refusal> {
        if self.last_dir.0 == path {
            return Ok(self.last_dir.1);
        }
        let mut slot = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            self.step()?;
            slot = self.directory_in(slot, name, false)?;
        }
        path.clone_into(&mut self.last_dir.0);
        self.last_dir.1 = slot;
        Ok(slot)
    }

    /// The directory `name` in `dir`, made where missing. Another node of that name is in the way, unless an entry
    /// for the directory itself replaces it.
    fn directory_in(&mut self, dir: Slot, name: &str, replace: bool) -> Result<Slot, Refusal> {
        if let Some(id) = self.names.find(&self.strings, dir, name) {
            let slot = self.names.get(id).map_or(ROOT, |name| name.node);
            let node = self.node(slot);
            if node.kind == Kind::Dir as u8 {
                return Ok(slot);
            }
            if !replace && node.flags & WHITEOUT == 0 {
                return Err(Problem::Nonsense("is below something that is not a directory").into());
            }
        }
        let slot = self.push(directory(dir, 0))?;
        let id = self.bind(dir, name, slot)?;
        self.node_mut(slot).into_iter().for_each(|node| node.entry = id.into());
        Ok(slot)
    }

    /// Makes a name stand for a node, whatever it stood for before.
    fn bind(&mut self, dir: Slot, name: &str, slot: Slot) -> Result<u32, Refusal> {
        let Some(id) = self.names.find(&self.strings, dir, name) else {
            return Ok(self.names.add(&mut self.strings, dir, name, slot)?);
        };
        if let Some(name) = self.names.get_mut(id) {
            let replaced = std::mem::replace(&mut name.node, slot);
            if self.node(replaced).kind == Kind::Dir as u8 {
                // The directory looked for last may have been below this one.
                self.last_dir = (String::new(), ROOT);
            }
        }
        Ok(id)
    }

    fn push(&mut self, node: NodeRecord) -> Result<Slot, TocError> {
        if self.nodes.len() >= limits::NODES {
            return Err(TocError::TooMuch { what: "files and directories", limit: limits::NODES as u64 });
        }
        self.nodes.push(node);
        Ok(self.nodes.len() as Slot - 1)
    }

    fn set_attributes(&mut self, slot: Slot, entry: &Entry) -> Result<(), Refusal> {
        let uid = bounded("its user number", entry.uid, limits::ID)?;
        let gid = bounded("its group number", entry.gid, limits::ID)?;
        let (sec, nsec) =
            entry.mtime.0.ok_or(Problem::Nonsense("has a modification time that is not RFC 3339"))?;
        let xattrs = match &entry.xattrs {
            Some(xattrs) => self.xattrs.add(&mut self.strings, xattrs)?,
            None => XattrSet::default(),
        };
        let Some(node) = self.node_mut(slot) else { return Ok(()) };
        // Type bits are in some writers' modes; the type is told by the entry's type.
        node.perm = U16::new((entry.mode & 0o7777) as u16);
        (node.uid, node.gid) = (uid.into(), gid.into());
        (node.mtime_sec, node.mtime_nsec) = (I64::new(sec), U32::new(nsec));
        (node.xattr_first, node.xattr_count) = (xattrs.first.into(), xattrs.count.into());
        node.flags = if xattrs.has_posix_acl { node.flags | POSIX_ACL } else { node.flags & !POSIX_ACL };
        Ok(())
    }

    fn set_target(&mut self, node: &mut NodeRecord, target: &str) -> Result<(), TocError> {
        node.a = self.strings.add(target.as_bytes())?.into();
        node.b = U32::new(target.len() as u32);
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), TocError> {
        if let Some(run) = self.contents.end()? {
            self.node_mut(run.node).into_iter().for_each(|node| {
                (node.a, node.b) = (run.first.into(), run.count.into());
                node.size = U64::new(run.len);
            });
        }
        Ok(())
    }

    /// Counts a step from a directory to what is in it.
    fn step(&mut self) -> Result<(), TocError> {
        self.steps += 1;
        if self.steps > limits::PATH_STEPS {
            return Err(TocError::TooMuch { what: "directories in its names", limit: limits::PATH_STEPS });
        }
        Ok(())
    }
}

/// A directory that no entry describes, as extracting the tar would make it.
fn directory(parent: Slot, entry: u32) -> NodeRecord {
    NodeRecord {
        kind: Kind::Dir as u8,
        perm: U16::new(0o755),
        parent: parent.into(),
        entry: entry.into(),
        ..NodeRecord::default()
    }
}

/// What the name `last` in the directory `dir` of a cleaned path is for.
fn meaning<'a>(dir: &str, last: &'a str) -> Meaning<'a> {
    let below_mark = dir.split('/').any(|part| part.starts_with(WHITEOUT_PREFIX));
    let top = dir.split('/').next().filter(|top| !top.is_empty()).unwrap_or(last);
    if below_mark || is_hidden_in_root(top) {
        return Meaning::Hidden;
    }
    match last.strip_prefix(WHITEOUT_PREFIX) {
        Some(OPAQUE_MARK) => Meaning::Opaque,
        // Further marks of AUFS, and names that no directory has.
        Some(name) if name.starts_with(WHITEOUT_PREFIX) || matches!(name, "" | "." | "..") => Meaning::Hidden,
        Some(name) if dir.is_empty() && is_hidden_in_root(name) => Meaning::Hidden,
        Some(name) => Meaning::Whiteout(name),
        None if last.is_empty() => Meaning::Root,
        None => Meaning::Node(last),
    }
}

fn is_hidden_in_root(name: &str) -> bool {
    matches!(name, PREFETCH_LANDMARK | NO_PREFETCH_LANDMARK | section::TOC_NAME)
}
