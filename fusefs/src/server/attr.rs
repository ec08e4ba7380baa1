//! How a node looks to `stat`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use estargz::Kind;
use fuser::{FileAttr, FileType};

use crate::{Attributes, ino::Inode, table::Attached};

/// How long the kernel may keep what is in a layer: for ever. 136 years fit any of its time types.
pub(super) const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// How long the kernel may keep what is in the root.
pub(super) const NOT_AT_ALL: Duration = Duration::ZERO;

const BLOCK: u32 = 4096;

/// Attributes of a node of a layer. Files take whole blocks of 4 KiB, as they do on ext4 and in the content file, so
/// that `du` gives the same figure.
pub(super) fn of_node(inode: Inode, node: &Attributes) -> FileAttr {
    let mtime = time(node.mtime);
    let size = if node.kind == Kind::Dir { u64::from(BLOCK) } else { node.size };
    let blocks = match node.kind {
        Kind::Reg | Kind::Dir => size.div_ceil(u64::from(BLOCK)).saturating_mul(u64::from(BLOCK) / 512),
        Kind::Symlink | Kind::Char | Kind::Block | Kind::Fifo => 0,
    };
    FileAttr {
        ino: inode.number(),
        size,
        blocks,
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: file_type(node.kind),
        perm: node.perm,
        nlink: node.nlink,
        uid: node.uid,
        gid: node.gid,
        rdev: device_number(node.rdev),
        blksize: BLOCK,
        flags: 0,
    }
}

/// Attributes of the root: its time changes whenever a layer comes or goes.
pub(super) fn of_root(layers: &Attached) -> FileAttr {
    FileAttr {
        ino: Inode::Root.number(),
        size: u64::from(BLOCK),
        blocks: u64::from(BLOCK) / 512,
        atime: layers.changed(),
        mtime: layers.changed(),
        ctime: layers.changed(),
        crtime: layers.changed(),
        kind: FileType::Directory,
        perm: 0o755,
        nlink: u32::try_from(layers.len()).unwrap_or(u32::MAX).saturating_add(2),
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

/// What stands for "no such name, and there never will be": an entry without an inode.
pub(super) fn of_nothing() -> FileAttr {
    FileAttr {
        ino: fuser::INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Dir => FileType::Directory,
        Kind::Reg => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::Char => FileType::CharDevice,
        Kind::Block => FileType::BlockDevice,
        Kind::Fifo => FileType::NamedPipe,
    }
}

/// Times that the clock type cannot hold become 1970: an image may claim any 64-bit number.
fn time((seconds, nanos): (i64, u32)) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    time.and_then(|time| time.checked_add(Duration::from_nanos(nanos.into()))).unwrap_or(UNIX_EPOCH)
}

/// The kernel's 32-bit form of a device number (`new_encode_dev`): 12 bits major, 20 bits minor.
fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_those_of_the_kernel() {
        assert_eq!(device_number((0, 0)), 0);
        assert_eq!(device_number((1, 3)), 0x103);
        assert_eq!(device_number((0xfff, 0xf_ffff)), u32::MAX);
        assert_eq!(device_number((8, 0x12345)), 0x1230_0845);
    }

    #[test]
    fn times_before_1970_and_absurd_ones_are_times() {
        assert_eq!(time((-1, 0)), UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(time((-1, 500_000_000)), UNIX_EPOCH - Duration::from_millis(500));
        assert_eq!(time((i64::MAX, 999_999_999)), UNIX_EPOCH + Duration::new(i64::MAX as u64, 999_999_999));
        assert_eq!(time((i64::MAX, u32::MAX)), UNIX_EPOCH);
        assert_eq!(time((5, 7)), UNIX_EPOCH + Duration::new(5, 7));
    }
}
