//! What is mounted where, read from `/proc/self/mountinfo`: the one way to learn about a mount whose server may be
//! dead or hanging without asking that server.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// A line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Device number as `major:minor`, which is also the name of its directory in `/sys/class/bdi`.
    pub(super) device: String,
    pub(super) mountpoint: PathBuf,
    /// Type and subtype, as in `fuse.starling`.
    pub(super) file_system: String,
}

/// The topmost mount at a path, which must be absolute and without symbolic links.
pub(super) fn at(path: &Path) -> io::Result<Option<Mounted>> {
    // Of the calling thread, for threads may be in mount namespaces of their own.
    let table = std::fs::read("/proc/thread-self/mountinfo")?;
    Ok(topmost(&table, path))
}

fn topmost(table: &[u8], path: &Path) -> Option<Mounted> {
    // Later lines lie on top of earlier ones.
    table.split(|&byte| byte == b'\n').rev().filter_map(line).find(|mounted| mounted.mountpoint == path)
}

/// `36 35 0:52 / /mnt rw,noatime shared:1 - fuse.x source rw`, with any number of fields before the hyphen.
fn line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
    let mountpoint = PathBuf::from(unescape(fields.nth(1)?));
    let file_system = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mounted { device, mountpoint, file_system: String::from_utf8_lossy(file_system).into_owned() })
}

/// Undoes the kernel's escapes: space, tab, newline and backslash are a backslash and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| byte == b'\\').and_then(octal);
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    OsString::from_vec(out)
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::ffi::OsStr::from_bytes(digits).to_str()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
        22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        40 22 0:50 / /a\\040b rw - fuse.starling starling rw,user_id=0\n\
        41 22 0:51 / /a\\040b rw shared:3 master:1 propagate_from:2 - fuse.other other rw\n\
        42 22 0:52 / /c\\134d ro - tmpfs none rw\n\
        a line that is no mount\n";

    #[test]
    fn the_topmost_mount_is_found_whatever_its_path() {
        let found = topmost(TABLE, Path::new("/a b")).unwrap();
        assert_eq!((found.device.as_str(), found.file_system.as_str()), ("0:51", "fuse.other"));
        assert_eq!(topmost(TABLE, Path::new("/c\\d")).unwrap().device, "0:52");
        assert_eq!(topmost(TABLE, Path::new("/")).unwrap().file_system, "ext4");
        assert_eq!(topmost(TABLE, Path::new("/a")), None);
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(at(Path::new("/")).unwrap().is_some());
    }

    #[test]
    fn only_octal_escapes_are_undone() {
        assert_eq!(unescape(b"\\040x\\134\\011"), " x\\\t");
        assert_eq!(unescape(b"\\9xy\\04"), "\\9xy\\04");
    }
}
