//! Files found by handle, as overlayfs finds the origin of what was copied up: also those that the kernel has forgotten.

use std::{fs::File, io::Read, os::fd::FromRawFd, path::Path};

use estargz::{Kind, NodeId};
use fusefs::LayerTree;

use crate::{
    fixture::{mounted, slot},
    memory::MemoryLayer,
};

/// `struct file_handle` as FUSE makes it: the inode number's upper half first, then the generation.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u32; 3],
}

/// `FILEID_INO64_GEN`
const INO64_GEN: i32 = 0x81;

/// The node of a slot, whatever the kernel knows of it.
pub(crate) fn open(mount: &File, number: u32, node: NodeId) -> std::io::Result<File> {
    let mut handle = Handle { bytes: 12, kind: INO64_GEN, handle: [number, node.get(), 0] };
    let mount = std::os::fd::AsRawFd::as_raw_fd(mount);
    // SAFETY: the handle has the length that it tells, and the descriptor of the mount is open.
    let fd = unsafe { libc::open_by_handle_at(mount, (&raw mut handle).cast(), libc::O_RDONLY) };
    // SAFETY: a descriptor that was just opened, and that nobody else has.
    if fd < 0 { Err(std::io::Error::last_os_error()) } else { Ok(unsafe { File::from_raw_fd(fd) }) }
}

#[test]
fn a_node_that_was_never_looked_up_is_found_by_its_number() {
    let mut layer = MemoryLayer::new();
    layer.text("dir/deep/file", "text").dir("dir/empty", 0o700);
    let [file, deep, empty] = ["dir/deep/file", "dir/deep", "dir/empty"].map(|path| layer.find(path));
    assert_eq!(layer.attributes(empty).unwrap().kind, Kind::Dir);
    let Some((fixture, path)) = mounted(layer) else { return };
    let mount = File::open(&path).unwrap();
    let mut text = String::new();
    open(&mount, 1, file).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
    for (node, name) in [(deep, "dir/deep"), (empty, "dir/empty"), (NodeId::ROOT, "")] {
        use std::os::unix::fs::MetadataExt;
        let dir = open(&mount, 1, node).unwrap();
        assert_eq!(dir.metadata().unwrap().ino(), 1 << 32 | u64::from(node.get()));
        let found =
            std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir))).unwrap();
        assert_eq!(found, Path::new(&path).join(name).components().collect::<std::path::PathBuf>());
    }
    let error = open(&mount, 1, NodeId::new(77).unwrap()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    let error = open(&mount, 2, file).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    fixture.connection.detach(slot(1));
}
