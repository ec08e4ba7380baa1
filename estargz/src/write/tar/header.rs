//! What a member's headers say together: the block, its extended records and its GNU long names.

use std::collections::BTreeMap;

use super::{
    field::{Block, Dialect, number, text, unsigned},
    pax::{Records, time},
};

/// What kind of node a member makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    Regular,
    /// Another name of an earlier member.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// The metadata of a member. Names are bytes here: the archive may hold any.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    /// The name as the archive has it.
    pub name: Vec<u8>,
    /// The target of a hard or symbolic link, empty for others.
    pub link_name: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// The mode field, which may hold more than permission bits.
    pub mode: u64,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Owner's name, may be empty.
    pub user_name: Vec<u8>,
    /// Group's name, may be empty.
    pub group_name: Vec<u8>,
    /// Bytes of a regular file once unpacked; 0 for others.
    pub size: u64,
    /// Seconds and nanoseconds since 1970; negative seconds with positive nanoseconds before that.
    pub mtime: (i64, u32),
    /// Major device number.
    pub dev_major: u64,
    /// Minor device number.
    pub dev_minor: u64,
    /// Extended attributes, from `SCHILY.xattr.` records.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

// === impl Header ===

impl Header {
    /// A regular file of root's, without permissions, made in 1970.
    pub(crate) fn regular(name: &str, size: u64) -> Self {
        Self {
            name: name.into(),
            link_name: Vec::new(),
            kind: Kind::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            user_name: Vec::new(),
            group_name: Vec::new(),
            size,
            mtime: (0, 0),
            dev_major: 0,
            dev_minor: 0,
            xattrs: BTreeMap::new(),
        }
    }

    pub(super) fn parse(block: &Block, records: &Records) -> Result<Self, &'static str> {
        let dialect = block.dialect();
        let own = |key: &[u8], field: &[u8]| records.get(key).unwrap_or(field).to_vec();
        let owner = |key: &[u8], at| match records.number(key)? {
            Some(id) => Ok(id),
            None => unsigned(block.field(at, 8)),
        };
        let with_names = dialect != Dialect::V7;
        let names = |at| if with_names { text(block.field(at, 32)) } else { &[] };
        let device = |at| if with_names { unsigned(block.field(at, 8)) } else { Ok(0) };
        Ok(Self {
            name: own(b"path", &block_name(block, dialect)),
            link_name: own(b"linkpath", text(block.field(157, 100))),
            kind: Kind::Regular,
            mode: unsigned(block.field(100, 8))?,
            uid: owner(b"uid", 108)?,
            gid: owner(b"gid", 116)?,
            user_name: own(b"uname", names(265)),
            group_name: own(b"gname", names(297)),
            size: match records.number(b"size")? {
                Some(size) => size,
                None => block.size()?,
            },
            mtime: match records.get(b"mtime") {
                Some(text) => time(text)?,
                None => (number(block.field(136, 12))?, 0),
            },
            dev_major: device(329)?,
            dev_minor: device(337)?,
            xattrs: xattrs(records),
        })
    }

    /// The kind that `flag` stands for, `None` for what no file system holds.
    pub(super) fn kind_of(&self, flag: u8) -> Option<Kind> {
        Some(match flag {
            // Before ustar a trailing slash was how a directory was told.
            0 if self.name.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::Regular,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return None,
        })
    }
}

/// The name in the block; ustar and star put the front of a long one in a second field.
fn block_name(block: &Block, dialect: Dialect) -> Vec<u8> {
    let name = text(block.field(0, 100));
    let prefix = match dialect {
        Dialect::Ustar => text(block.field(345, 155)),
        Dialect::Star => text(block.field(345, 131)),
        Dialect::V7 | Dialect::Gnu => &[],
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

fn xattrs(records: &Records) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let own = records.iter().filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?, value)));
    own.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}
