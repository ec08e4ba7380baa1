//! Archives, made together with the list of what is in them.

use std::{collections::BTreeMap, io::Write};

use estargz::Digest;
use tar::{Builder, EntryType, Header};
use testkit::golden::GoldenNode;

const MTIME: i64 = 1_234_567_890;

/// An archive that grows, and the truth about it by path.
pub(crate) struct Archive {
    builder: Builder<Vec<u8>>,
    truth: BTreeMap<String, GoldenNode>,
    /// The names of files that have more than one.
    links: BTreeMap<String, String>,
}

/// Extended attributes: names and values.
pub(crate) type Xattrs<'a> = &'a [(&'a str, &'a [u8])];

/// What an entry has besides its name.
pub(crate) struct Attributes<'a> {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: i64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Xattrs<'a>,
}

pub(crate) const PLAIN: Attributes<'_> =
    Attributes { mode: 0o644, owner: (1000, 100), mtime: MTIME, device: (0, 0), xattrs: &[] };

impl Archive {
    /// An archive with nothing but the root directory.
    pub(crate) fn new() -> Self {
        let mut archive =
            Self { builder: Builder::new(Vec::new()), truth: BTreeMap::new(), links: BTreeMap::new() };
        archive.add("./", EntryType::Directory, &Attributes { mode: 0o755, ..PLAIN }, b"");
        archive
    }

    pub(crate) fn dir(&mut self, path: &str, mode: u32) {
        self.add(path, EntryType::Directory, &Attributes { mode, ..PLAIN }, b"");
    }

    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.add(path, EntryType::Regular, &PLAIN, content);
    }

    /// Adds a node of any kind but the links.
    pub(crate) fn add(&mut self, path: &str, kind: EntryType, attributes: &Attributes<'_>, content: &[u8]) {
        self.pax(attributes);
        let mut header = header(kind, attributes);
        header.set_size(content.len() as u64);
        header.set_device_major(attributes.device.0).unwrap();
        header.set_device_minor(attributes.device.1).unwrap();
        self.builder.append_data(&mut header, path, content).unwrap();
        let name = match kind {
            EntryType::Directory => "dir",
            EntryType::Char => "char",
            EntryType::Block => "block",
            EntryType::Fifo => "fifo",
            _ => "reg",
        };
        let sha256 = if content.is_empty() { String::new() } else { Digest::of(content).hex() };
        let mut node = node(name, attributes);
        (node.size, node.sha256) = (content.len() as u64, sha256);
        self.insert(path.trim_start_matches("./").trim_end_matches('/'), node);
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        let attributes = Attributes { mode: 0o777, ..PLAIN };
        self.builder.append_link(&mut header(EntryType::Symlink, &attributes), path, target).unwrap();
        let mut node = node("symlink", &attributes);
        target.clone_into(&mut node.link);
        self.insert(path, node);
    }

    /// Gives `target`, which is in the archive, another name.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.builder.append_link(&mut header(EntryType::Link, &PLAIN), path, target).unwrap();
        let first = self.links.get(target).cloned().unwrap_or_else(|| target.to_owned());
        self.links.insert(path.to_owned(), first);
        self.parents(path);
    }

    /// The archive, and what is in it by path.
    pub(crate) fn finish(mut self) -> (Vec<u8>, BTreeMap<String, GoldenNode>) {
        for first in self.links.values() {
            self.truth.get_mut(first).unwrap().num_link += 1;
        }
        for (path, first) in &self.links {
            let node = self.truth[first].clone();
            self.truth.insert(path.clone(), GoldenNode { path: path.clone(), ..node });
        }
        let below = |path: &str| self.truth.values().filter(|node| is_dir_in(node, path)).count() as u32;
        let dirs: Vec<_> = self.truth.values().filter(|node| node.kind == "dir").collect();
        let counts: Vec<_> = dirs.iter().map(|dir| (dir.path.clone(), 2 + below(&dir.path))).collect();
        for (path, count) in counts {
            self.truth.get_mut(&path).unwrap().num_link = count;
        }
        self.builder.get_mut().flush().unwrap();
        (self.builder.into_inner().unwrap(), self.truth)
    }

    /// Times and attributes that a plain header has no room for.
    fn pax(&mut self, attributes: &Attributes<'_>) {
        let mut records = Vec::new();
        let named = attributes.xattrs.iter();
        records.extend(named.map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.to_vec())));
        if attributes.mtime != MTIME {
            records.push(("mtime".to_owned(), attributes.mtime.to_string().into_bytes()));
        }
        if !records.is_empty() {
            let records = records.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            self.builder.append_pax_extensions(records).unwrap();
        }
    }

    fn insert(&mut self, path: &str, node: GoldenNode) {
        self.parents(path);
        self.truth.insert(path.to_owned(), GoldenNode { path: path.to_owned(), ..node });
    }

    /// Adds the directories above `path` that have no entry.
    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            let dir = &path[..at];
            let implied = || GoldenNode { path: dir.to_owned(), ..implied_dir() };
            self.truth.entry(dir.to_owned()).or_insert_with(implied);
        }
    }
}

fn is_dir_in(node: &GoldenNode, dir: &str) -> bool {
    let parent = node.path.rfind('/').map_or("", |at| &node.path[..at]);
    node.kind == "dir" && parent == dir && !node.path.is_empty()
}

fn header(kind: EntryType, attributes: &Attributes<'_>) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(attributes.mode);
    header.set_uid(attributes.owner.0.into());
    header.set_gid(attributes.owner.1.into());
    header.set_mtime(MTIME as u64);
    header.set_size(0);
    header
}

fn node(kind: &str, attributes: &Attributes<'_>) -> GoldenNode {
    let (uid, gid) = attributes.owner;
    let (dev_major, dev_minor) = attributes.device;
    let xattrs = attributes.xattrs.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec()));
    GoldenNode {
        path: String::new(),
        kind: kind.to_owned(),
        mode: attributes.mode,
        uid,
        gid,
        size: 0,
        link: String::new(),
        num_link: 1,
        dev_major,
        dev_minor,
        mtime: attributes.mtime,
        sha256: String::new(),
        xattrs: xattrs.collect(),
    }
}

/// A directory that only the names below it tell of.
fn implied_dir() -> GoldenNode {
    node("dir", &Attributes { mode: 0o755, owner: (0, 0), mtime: 0, ..PLAIN })
}
