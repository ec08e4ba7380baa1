//! Attributes, links, extended attributes, statfs: what `stat` and its kin say.

use std::{
    ffi::OsStr,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use estargz::Kind;
use fusefs::{MountOptions, OpaqueForm};

use crate::{
    fixture::{connect_with, mounted},
    memory::{Content, MemoryLayer},
};

fn every_kind() -> MemoryLayer {
    let mut layer = MemoryLayer::new();
    layer
        .dir("dir", 0o1777)
        .text("dir/file", "hello")
        .link("dir/link", "file")
        .device("dir/char", Kind::Char, (4, 300))
        .device("dir/block", Kind::Block, (259, 70_000))
        .hard_link("dir/again", "dir/file")
        .change("dir/file", |a| (a.uid, a.gid, a.perm, a.mtime) = (1000, 4_000_000_000, 0o6751, (-5, 123)));
    layer.add("dir/fifo", Kind::Fifo, 0o640);
    layer
}

#[test]
fn stat_tells_what_the_image_says() {
    let Some((_fixture, path)) = mounted(every_kind()) else { return };
    let file = path.join("dir/file").metadata().unwrap();
    assert_eq!(file.mode(), 0o106_751);
    assert_eq!((file.uid(), file.gid(), file.len(), file.nlink()), (1000, 4_000_000_000, 5, 2));
    assert_eq!((file.mtime(), file.mtime_nsec()), (-5, 123));
    assert_eq!((file.ctime(), file.atime()), (-5, -5));
    assert_eq!((file.blksize(), file.blocks()), (4096, 8));
    assert_eq!(path.join("dir/again").metadata().unwrap().ino(), file.ino());
    assert_eq!(file.ino() >> 32, 1);

    let char = path.join("dir/char").symlink_metadata().unwrap();
    assert!(char.file_type().is_char_device());
    assert_eq!(char.rdev(), nix::sys::stat::makedev(4, 300));
    let block = path.join("dir/block").symlink_metadata().unwrap();
    assert!(block.file_type().is_block_device());
    assert_eq!(block.rdev(), nix::sys::stat::makedev(259, 70_000));
    assert!(path.join("dir/fifo").symlink_metadata().unwrap().file_type().is_fifo());

    let dir = path.join("dir").metadata().unwrap();
    assert_eq!((dir.mode(), dir.nlink(), dir.len()), (0o041_777, 2, 4096));
    assert_eq!(path.metadata().unwrap().nlink(), 3);
    assert_eq!(path.join("dir/nothing").metadata().unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(path.join("dir/file/x").metadata().unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
}

#[test]
fn symbolic_links_lead_where_the_image_says() {
    let mut layer = every_kind();
    let long = "x/".repeat(2000);
    layer.link("long", &long).link("absolute", "/no/such/path");
    let Some((fixture, path)) = mounted(layer) else { return };
    assert_eq!(std::fs::read_to_string(path.join("dir/link")).unwrap(), "hello");
    assert_eq!(path.join("long").read_link().unwrap(), Path::new(&long));
    assert_eq!(path.join("long").symlink_metadata().unwrap().len(), 4000);
    let before = fixture.connection.counters().readlinks;
    for _ in 0..5 {
        assert_eq!(path.join("absolute").read_link().unwrap(), Path::new("/no/such/path"));
    }
    assert_eq!(fixture.connection.counters().readlinks, before + 1, "links are kept by the kernel");
}

#[test]
fn names_of_255_bytes_work() {
    let name = "é".repeat(127) + "x";
    assert_eq!(name.len(), 255);
    let mut layer = MemoryLayer::new();
    layer.text(&format!("{name}/{name}"), "deep");
    let Some((_fixture, path)) = mounted(layer) else { return };
    assert_eq!(std::fs::read_to_string(path.join(&name).join(&name)).unwrap(), "deep");
    let listed: Vec<_> = path.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed, [OsStr::new(&name)]);
    let longer = path.join(name.clone() + "y").metadata().unwrap_err();
    assert!(matches!(longer.raw_os_error(), Some(libc::ENAMETOOLONG | libc::ENOENT)));
}

#[test]
fn extended_attributes_follow_the_protocol() {
    let mut layer = every_kind();
    let big = vec![7; 60_000];
    layer.xattr("dir/file", "user.empty", b"").xattr("dir/file", "user.big", &big).xattr(
        "dir/file",
        "security.capability",
        b"\x01\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    );
    let Some((_fixture, path)) = mounted(layer) else { return };
    let file = path.join("dir/file");
    assert_eq!(xattr::get(&file, "user.empty").unwrap(), Some(vec![]));
    assert_eq!(xattr::get(&file, "user.big").unwrap(), Some(big));
    assert_eq!(xattr::get(&file, "security.capability").unwrap().unwrap().len(), 20);
    assert_eq!(xattr::get(&file, "user.nothing").unwrap(), None);
    assert_eq!(xattr::get(path.join("dir"), "trusted.overlay.opaque").unwrap(), None);
    let mut names: Vec<_> = xattr::list(&file).unwrap().collect();
    names.sort();
    assert_eq!(names, ["security.capability", "user.big", "user.empty"]);
    assert_eq!(small_buffer(&file, c"user.big"), nix::errno::Errno::ERANGE);
    assert_eq!(small_buffer(&file, c"user.none"), nix::errno::Errno::ENODATA);
}

/// What getxattr with a buffer of two bytes says, as the coreutils see it.
fn small_buffer(file: &Path, name: &std::ffi::CStr) -> nix::errno::Errno {
    let path = std::ffi::CString::new(file.as_os_str().as_encoded_bytes()).unwrap();
    let mut buf = [0_u8; 2];
    // SAFETY: both strings end with a NUL, and the buffer has the length that is told.
    let got = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
    assert_eq!(got, -1);
    nix::errno::Errno::last()
}

#[test]
fn opaque_directories_are_marked_in_the_form_of_the_options() {
    for (opaque, here, other) in [
        (OpaqueForm::Trusted, "trusted.overlay.opaque", "user.overlay.opaque"),
        (OpaqueForm::User, "user.overlay.opaque", "trusted.overlay.opaque"),
    ] {
        let mut layer = every_kind();
        layer.dir("hides", 0o755).change("hides", |a| a.opaque = true);
        let Some(fixture) = connect_with(MountOptions { opaque, ..MountOptions::default() }) else { return };
        let path = fixture.attach(1, layer);
        assert_eq!(xattr::get(path.join("hides"), here).unwrap(), Some(b"y".to_vec()));
        assert_eq!(xattr::get(path.join("hides"), other).unwrap(), None);
        assert_eq!(xattr::get(path.join("dir"), here).unwrap(), None);
        assert_eq!(xattr::list(path.join("hides")).unwrap().collect::<Vec<_>>(), [OsStr::new(here)]);
    }
}

#[test]
fn statfs_has_sane_numbers() {
    let mut layer = MemoryLayer::new();
    layer.file("a", 0o644, Content::Pattern(10_000)).file("b", 0o644, Content::Pattern(1));
    let Some((fixture, path)) = mounted(layer) else { return };
    let layer = nix::sys::statvfs::statvfs(&path).unwrap();
    assert_eq!((layer.block_size(), layer.fragment_size(), layer.name_max()), (4096, 4096, 255));
    assert_eq!((layer.blocks(), layer.blocks_free(), layer.blocks_available()), (3, 0, 0));
    assert_eq!((layer.files(), layer.files_free()), (3, 0));
    assert!(layer.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    assert!(
        !layer
            .flags()
            .intersects(nix::sys::statvfs::FsFlags::ST_NOSUID | nix::sys::statvfs::FsFlags::ST_NODEV)
    );
    assert_eq!(nix::sys::statvfs::statvfs(fixture.connection.mountpoint()).unwrap().files(), 3);
}

#[test]
fn a_mount_without_attributes_is_asked_for_one_once() {
    let Some(fixture) = connect_with(MountOptions { attributes: false, ..MountOptions::default() }) else {
        return;
    };
    let mut layer = MemoryLayer::new();
    layer.text("a", "1").text("b", "2");
    let path = fixture.attach(1, layer);
    for name in ["a", "b", "a"] {
        let error = xattr::get(path.join(name), "user.any").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{name}");
        assert_eq!(std::fs::read(path.join(name)).unwrap(), if name == "a" { b"1" } else { b"2" });
    }
    assert_eq!(fixture.connection.counters().getxattrs, 1);
}
