//! A mounted layer is what GNU tar makes of the same archive: node by node and byte by byte.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use estargz::write::Options;
use nix::sys::{
    stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat},
    time::TimeSpec,
};
use testkit::{
    sample_image, skip_unless,
    tree_compare::{Comparison, compare},
};

use crate::{
    blob::BlobLayer,
    fixture::{Fixture, connect},
    stored::{Origin, image, stored},
};

/// Makes a tree with every kind of node and every attribute that a layer can carry.
fn every_node(root: &Path) {
    fs::create_dir_all(root.join("dir/deeper/still")).unwrap();
    for (name, perm) in
        [("plain", 0o644), ("setuid", 0o4755), ("setgid", 0o2711), ("none", 0), ("odd", 0o3217)]
    {
        fs::write(root.join("dir").join(name), format!("this is {name}")).unwrap();
        fs::set_permissions(root.join("dir").join(name), Permissions::from_mode(perm)).unwrap();
    }
    for (size, name) in [(0, "empty"), (1, "one"), (4096, "page"), (4097, "page+1"), (10_000_019, "big")] {
        let bytes: Vec<_> = (0..size).map(|at: u32| (at ^ at >> 9 ^ at >> 15) as u8).collect();
        fs::write(root.join(name), bytes).unwrap();
    }
    File::create(root.join("holes")).unwrap().set_len(9 << 20).unwrap();
    fs::hard_link(root.join("one"), root.join("dir/one again")).unwrap();
    fs::hard_link(root.join("one"), root.join("dir/deeper/one more")).unwrap();
    for (name, target) in
        [("link", "dir/plain"), ("broken", "/no/where"), ("up", "../../etc"), ("dir/loop", "loop")]
    {
        symlink(target, root.join(name)).unwrap();
    }
    symlink("l/".repeat(1000), root.join("long link")).unwrap();
    fs::hard_link(root.join("link"), root.join("link again")).unwrap();
    let node =
        |name, kind, device| mknod(&root.join(name), kind, Mode::from_bits_truncate(0o620), device).unwrap();
    node("char", SFlag::S_IFCHR, makedev(5, 1));
    node("block", SFlag::S_IFBLK, makedev(259, 300));
    node("pipe", SFlag::S_IFIFO, 0);
    let long = "n".repeat(255);
    fs::create_dir_all(root.join(&long).join(&long)).unwrap();
    fs::write(root.join(&long).join(&long).join("ünïcode — ✓ \\ \" \n newline"), "text").unwrap();
    fs::create_dir_all(root.join("x/".repeat(60))).unwrap();
    chown(root.join("dir/plain"), Some(1000), Some(100)).unwrap();
    chown(root.join("dir/deeper"), Some(3_000_000_000), Some(4_000_000_000)).unwrap();
    std::os::unix::fs::lchown(root.join("broken"), Some(7), Some(8)).unwrap();
    fs::set_permissions(root.join("dir/deeper"), Permissions::from_mode(0o1777)).unwrap();
    xattrs(root);
    whiteouts(root);
    times(root);
}

fn xattrs(root: &Path) {
    for (path, name, value) in [
        ("dir/plain", "user.text", b"text".as_slice()),
        ("dir/plain", "user.empty", b""),
        ("dir/plain", "user.bytes", &[0, 255, b'\n', b'=', 0]),
        ("dir", "user.of a dir", b"1"),
        ("page", "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("page+1", "trusted.dropped", b"containerd drops these"),
    ] {
        xattr::set(root.join(path), name, value).unwrap();
    }
    xattr::set(root.join("big"), "user.big", &[b'x'; 3000]).unwrap();
}

fn whiteouts(root: &Path) {
    fs::create_dir(root.join("opaque")).unwrap();
    for name in [".wh.gone", "dir/.wh.gone too", "opaque/.wh..wh..opq", "opaque/new"] {
        fs::write(root.join(name), "").unwrap();
    }
}

fn times(root: &Path) {
    for (path, time) in
        [("page", 0), ("one", 1), ("big", 2_000_000_000), ("holes", 5_000_000_000), ("empty", -100)]
    {
        let time = TimeSpec::new(time, 123_456_789);
        utimensat(nix::fcntl::AT_FDCWD, &root.join(path), &time, &time, UtimensatFlags::NoFollowSymlink)
            .unwrap();
    }
}

fn tar(arguments: &[&str], dir: &Path, archive: &Path) {
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "--xattrs", "--xattrs-include=*"]).args(arguments);
    let output = command.arg("-C").arg(dir).arg("-f").arg(archive).args(
        // Extracting takes no names.
        arguments.contains(&"-c").then_some("."),
    );
    let output = output.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Packs a tree as `format` says.
fn pack(tree: &Path, format: &[&str]) -> PathBuf {
    let archive = tree.with_extension("tar");
    tar(&[&["-c", "--sort=name"], format].concat(), tree, &archive);
    archive
}

/// Extracts the archive beside the fixture with GNU tar and compares the tree with the layer that `mount` makes of it.
fn compared(fixture: &Fixture, archive: &Path, mount: impl FnOnce(&[u8]) -> PathBuf) -> Comparison {
    let extracted = tempfile::tempdir_in(fixture.dir.path()).unwrap();
    tar(&["-x", "-p", "--same-owner"], extracted.path(), archive);
    let layer = mount(&fs::read(archive).unwrap());
    compare(&layer, extracted.path()).unwrap()
}

fn assert_equal(found: &Comparison) {
    println!("{} nodes, {} bytes", found.nodes, found.bytes);
    assert_eq!(found.differences, Vec::<String>::new(), "{} differences", found.different);
}

#[test]
fn every_kind_of_node_is_as_gnu_tar_extracts_it() {
    let Some(fixture) = connect() else { return };
    let tree = fixture.dir.path().join("tree");
    every_node(&tree);
    let archive = pack(&tree, &["--format=posix"]);
    let small = Options { chunk_size: 65_536.try_into().unwrap(), ..Options::default() };
    let packed = Options { pack_size: 1 << 20, ..Options::default() };
    for (number, options) in [(1, Options::default()), (2, small), (3, packed)] {
        let mount = |archive: &[u8]| fixture.attach(number, BlobLayer::of_tar(archive, &options));
        let found = compared(&fixture, &archive, mount);
        assert_equal(&found);
        assert!(found.nodes > 90 && found.bytes > 19_000_000);
    }
}

#[test]
fn every_kind_of_node_comes_through_the_store() {
    let Some(stored) = stored(Duration::from_secs(20)) else { return };
    let tree = stored.fixture.dir.path().join("tree");
    every_node(&tree);
    let archive = pack(&tree, &["--format=posix"]);
    assert_equal(&compared(&stored.fixture, &archive, |archive| {
        stored.mount(1, &image(archive), Origin::Honest).0
    }));
}

#[test]
fn old_formats_of_archives_are_as_gnu_tar_extracts_them() {
    let Some(fixture) = connect() else { return };
    let tree = fixture.dir.path().join("tree");
    every_node(&tree);
    // Formats before POSIX.1-2001 have no attributes, and this one has holes in a form of its own.
    for name in ["dir", "dir/plain", "page", "page+1", "big"] {
        let path = tree.join(name);
        xattr::list(&path).unwrap().for_each(|name| xattr::remove(&path, name).unwrap());
    }
    fs::remove_file(tree.join("holes")).unwrap();
    let archive = tree.with_extension("gnu.tar");
    let mut pack = Command::new("tar");
    pack.args(["--numeric-owner", "--format=gnu", "-cf"]).arg(&archive).arg("-C").arg(&tree).arg(".");
    assert!(pack.status().unwrap().success());
    let mount = |archive: &[u8]| fixture.attach(1, BlobLayer::of_tar(archive, &Options::default()));
    assert_equal(&compared(&fixture, &archive, mount));
}

#[test]
fn a_debian_root_file_system_is_as_gnu_tar_extracts_it() {
    skip_unless!(sample_image::missing());
    let Some(stored) = stored(Duration::from_secs(20)) else { return };
    let archive = sample_image::debian().unwrap();
    let found =
        compared(&stored.fixture, &archive, |archive| stored.mount(1, &image(archive), Origin::Honest).0);
    assert_equal(&found);
    assert!(found.nodes > 8000 && found.bytes > 100_000_000);
    println!("{:?}", stored.fixture.connection.counters());
}
