//! Compares two trees node by node and byte by byte: a mounted layer with the same layer extracted by GNU tar.
//!
//! The extracted tree is the reference. What a tar cannot say in a tree is translated there: a file `.wh.x` stands for
//! a whiteout `x` (a character device 0:0), a file `.wh..wh..opq` for an opaque directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io::Read,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Differences that are told before the rest is only counted.
const TOLD: usize = 50;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

/// What was compared, and how it differs.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Nodes that both trees have.
    pub nodes: usize,
    /// Bytes of files that both trees have.
    pub bytes: u64,
    /// Sentences about the first differences; empty if the trees are equal.
    pub differences: Vec<String>,
    /// Number of all differences.
    pub different: usize,
}

/// Everything of a node that must be equal but the content of a file.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    kind: &'static str,
    perm: u32,
    owner: (u32, u32),
    device: u64,
    size: u64,
    mtime: i64,
    names: u64,
    target: Option<PathBuf>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// Compares the layer mounted at `mounted` with its tar `extracted` by GNU tar with
/// `--xattrs --xattrs-include='*' -p --numeric-owner --same-owner`.
///
/// # Errors
/// A tree cannot be read.
pub fn compare(mounted: &Path, extracted: &Path) -> Result<Comparison> {
    let mut found = Comparison::default();
    let mut links = Links::default();
    found.directories(mounted, extracted, Path::new(""), &mut links)?;
    let (of_mounted, of_extracted) = (links.mounted.into_values(), links.extracted.into_values());
    let (of_mounted, of_extracted): (BTreeSet<_>, BTreeSet<_>) =
        (of_mounted.collect(), of_extracted.collect());
    for group in of_mounted.symmetric_difference(&of_extracted).filter(|group| group.len() > 1) {
        found.tell(format!("only one tree links these names together: {group:?}"));
    }
    Ok(found)
}

/// The names of each inode that has several.
#[derive(Default)]
struct Links {
    mounted: BTreeMap<u64, BTreeSet<PathBuf>>,
    extracted: BTreeMap<u64, BTreeSet<PathBuf>>,
}

// === impl Comparison ===

impl Comparison {
    fn tell(&mut self, difference: String) {
        self.different += 1;
        if self.differences.len() < TOLD {
            self.differences.push(difference);
        }
    }

    fn directories(
        &mut self,
        mounted: &Path,
        extracted: &Path,
        path: &Path,
        links: &mut Links,
    ) -> Result<()> {
        let names = names(&mounted.join(path))?;
        let mut expected = names_of_extracted(&extracted.join(path))?;
        let opaque = expected.remove(OsStr::from_bytes(OPAQUE)).is_some();
        self.node(mounted, extracted, path, opaque, links)?;
        for name in &names {
            let Some(in_extracted) = expected.remove(name) else {
                self.tell(format!("{}: only in the mounted layer", path.join(name).display()));
                continue;
            };
            let path = path.join(name);
            match in_extracted {
                Expected::Whiteout => self.whiteout(&mounted.join(&path))?,
                Expected::Node if mounted.join(&path).symlink_metadata()?.is_dir() => {
                    self.directories(mounted, extracted, &path, links)?;
                }
                Expected::Node => self.node(mounted, extracted, &path, false, links)?,
            }
        }
        for name in expected.into_keys() {
            self.tell(format!("{}: missing in the mounted layer", path.join(name).display()));
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &Path) -> Result<()> {
        self.nodes += 1;
        let node = path.symlink_metadata()?;
        if !node.file_type().is_char_device() || node.rdev() != 0 {
            self.tell(format!("{}: not a whiteout", path.display()));
        }
        Ok(())
    }

    fn node(
        &mut self,
        mounted: &Path,
        extracted: &Path,
        path: &Path,
        opaque: bool,
        links: &mut Links,
    ) -> Result<()> {
        let (at, of) = (mounted.join(path), extracted.join(path));
        let (here, there) = (at.symlink_metadata()?, of.symlink_metadata()?);
        let found = Node::read(&at, &here)?;
        let mut expected = Node::read(&of, &there)?;
        if opaque {
            expected.xattrs.insert(OPAQUE_ATTRIBUTE.into(), b"y".to_vec());
        }
        self.nodes += 1;
        if found != expected {
            self.tell(format!("{}: is {found:?}, should be {expected:?}", path.display()));
        }
        if here.is_file() && there.is_file() {
            self.bytes += there.len();
            if let Some(offset) = first_difference(&at, &of)? {
                self.tell(format!("{}: bytes differ at {offset}", path.display()));
            }
        }
        for (links, node) in [(&mut links.mounted, here), (&mut links.extracted, there)] {
            if !node.is_dir() && node.nlink() > 1 {
                links.entry(node.ino()).or_default().insert(path.to_owned());
            }
        }
        Ok(())
    }
}

// === impl Node ===

impl Node {
    fn read(path: &Path, metadata: &Metadata) -> Result<Self> {
        let kind = metadata.file_type();
        let sized = kind.is_file() || kind.is_symlink();
        let device = kind.is_char_device() || kind.is_block_device();
        let mut xattrs = BTreeMap::new();
        for name in xattr::list(path).with_context(|| format!("attributes of {}", path.display()))? {
            // What the kernel adds by itself, and what layers may not bring.
            let ours = name == OPAQUE_ATTRIBUTE;
            if name == "security.selinux" || (name.as_bytes().starts_with(b"trusted.") && !ours) {
                continue;
            }
            let value = xattr::get(path, &name).with_context(|| format!("attribute {name:?}"))?;
            xattrs.insert(name, value.unwrap_or_default());
        }
        Ok(Self {
            kind: kind_name(kind),
            perm: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            device: if device { metadata.rdev() } else { 0 },
            size: if sized { metadata.len() } else { 0 },
            mtime: metadata.mtime(),
            names: metadata.nlink(),
            target: if kind.is_symlink() { Some(fs::read_link(path)?) } else { None },
            xattrs,
        })
    }
}

fn kind_name(kind: fs::FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "directory",
        _ if kind.is_file() => "file",
        _ if kind.is_symlink() => "symbolic link",
        _ if kind.is_char_device() => "character device",
        _ if kind.is_block_device() => "block device",
        _ if kind.is_fifo() => "pipe",
        _ => "something else",
    }
}

fn names(dir: &Path) -> Result<BTreeSet<OsString>> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let names: Vec<_> = entries.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    let count = names.len();
    let names: BTreeSet<_> = names.into_iter().collect();
    anyhow::ensure!(names.len() == count, "{} lists a name twice", dir.display());
    Ok(names)
}

/// What a name of the extracted tree stands for in a layer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Node,
    Whiteout,
}

fn names_of_extracted(dir: &Path) -> Result<BTreeMap<OsString, Expected>> {
    let mut expected = BTreeMap::new();
    for name in names(dir)? {
        match name.as_bytes().strip_prefix(WHITEOUT) {
            Some(of) if name.as_bytes() != OPAQUE => {
                // A name that is there as well wins over its whiteout.
                expected.entry(OsString::from_vec(of.to_vec())).or_insert(Expected::Whiteout);
            }
            _ => drop(expected.insert(name, Expected::Node)),
        }
    }
    Ok(expected)
}

/// Offset of the first byte that differs.
fn first_difference(one: &Path, other: &Path) -> Result<Option<u64>> {
    let [mut one, mut other] = [one, other].map(File::open);
    let (one, other) = (one.as_mut(), other.as_mut());
    let (mut one, mut other) = match (one, other) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(error), _) | (_, Err(error)) => anyhow::bail!("open: {error}"),
    };
    let [mut left, mut right] = [(); 2].map(|()| vec![0; 1 << 20]);
    let mut offset = 0;
    loop {
        let (got, expected) = (fill(&mut one, &mut left)?, fill(&mut other, &mut right)?);
        let (left, right) = (&left[..got], &right[..expected]);
        if left != right {
            let same = left.iter().zip(right).take_while(|(left, right)| left == right).count();
            return Ok(Some(offset + same as u64));
        }
        if got == 0 {
            return Ok(None);
        }
        offset += got as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buf: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            got => filled += got,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree(dir: &Path) {
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/file"), "content").unwrap();
        fs::hard_link(dir.join("a/file"), dir.join("a/again")).unwrap();
        symlink("file", dir.join("a/link")).unwrap();
        for path in ["a/file", "a/b", "a", ""] {
            let time = nix::sys::time::TimeSpec::new(1_000_000_000, 0);
            let follow = nix::sys::stat::UtimensatFlags::FollowSymlink;
            nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &dir.join(path), &time, &time, follow).unwrap();
        }
        let time = nix::sys::time::TimeSpec::new(7, 0);
        let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &dir.join("a/link"), &time, &time, flags).unwrap();
    }

    /// What is said about two equal trees after the second was changed.
    fn after(change: impl FnOnce(&Path)) -> Vec<String> {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tree(one.path());
        tree(other.path());
        let equal = compare(one.path(), other.path()).unwrap();
        assert_eq!((equal.nodes, equal.bytes, equal.differences.len()), (6, 14, 0), "{equal:?}");
        change(other.path());
        compare(one.path(), other.path()).unwrap().differences
    }

    #[test]
    fn every_difference_is_told() {
        assert!(after(|dir| fs::write(dir.join("a/file"), "c0ntent").unwrap())[0].contains("a/again: "));
        assert!(
            !after(|dir| fs::set_permissions(dir.join("a"), fs::Permissions::from_mode(0o4755)).unwrap())
                .is_empty()
        );
        assert!(!after(|dir| fs::remove_dir(dir.join("a/b")).unwrap()).is_empty());
        let extra = after(|dir| fs::write(dir.join("a/b/new"), "").unwrap());
        assert!(extra.iter().any(|told| told.contains("a/b/new: missing")), "{extra:?}");
        let unlinked = after(|dir| {
            fs::remove_file(dir.join("a/again")).unwrap();
            fs::copy(dir.join("a/file"), dir.join("a/again")).unwrap();
        });
        assert!(unlinked.iter().any(|told| told.contains("links these names")), "{unlinked:?}");
        let whited = after(|dir| fs::write(dir.join("a/.wh.b"), "").unwrap());
        assert!(
            whited.iter().all(|told| !told.contains("a/b:")),
            "an entry wins over its whiteout: {whited:?}"
        );
        let opaque = after(|dir| fs::write(dir.join("a/b/.wh..wh..opq"), "").unwrap());
        assert!(opaque.iter().any(|told| told.contains(OPAQUE_ATTRIBUTE)), "{opaque:?}");
    }
}
