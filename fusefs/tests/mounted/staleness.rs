//! What comes and goes in the root is never stale; what is in a layer never changes.

use std::{collections::BTreeSet, os::unix::fs::MetadataExt, path::Path, time::Duration};

use fusefs::AttachError;

use crate::{
    fixture::{connect, mounted, slot},
    memory::MemoryLayer,
};

fn text(text: &str) -> MemoryLayer {
    let mut layer = MemoryLayer::new();
    layer.text("file", text).text(&format!("only-{text}"), text);
    layer
}

fn names(path: &Path) -> BTreeSet<String> {
    path.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn a_layer_looked_up_before_it_is_attached_is_found_after() {
    let Some(fixture) = connect() else { return };
    let path = fixture.connection.layer_path(slot(7));
    for _ in 0..3 {
        assert_eq!(path.metadata().unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!(std::fs::read(path.join("file")).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
    fixture.attach(7, text("seven"));
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "seven");
    assert_eq!(path.metadata().unwrap().ino(), 7 << 32 | 1);
}

#[test]
fn a_listing_of_the_root_is_always_the_current_one() {
    let Some(fixture) = connect() else { return };
    let root = fixture.connection.mountpoint();
    assert_eq!(names(root), set([]));
    for round in 0..20_u32 {
        let number = 100 + round;
        fixture.attach(number, text("x"));
        let name = number.to_string();
        assert_eq!(names(root), set([&name]), "after attach, round {round}");
        assert_eq!(names(root), set([&name]), "again, round {round}");
        assert_eq!(root.metadata().unwrap().nlink(), 3);
        assert!(fixture.connection.detach(slot(number)));
        assert_eq!(names(root), set([]), "after detach, round {round}");
    }
}

#[test]
fn attaching_and_detaching_others_leaves_nothing_stale() {
    let Some(fixture) = connect() else { return };
    let one = fixture.attach(1, text("one"));
    let two = fixture.attach(2, text("two"));
    let held = std::fs::File::open(two.join("file")).unwrap();
    assert_eq!(std::fs::read_to_string(one.join("file")).unwrap(), "one");
    assert_eq!(std::fs::read_to_string(two.join("file")).unwrap(), "two");
    assert!(!one.join("only-three").exists());

    assert!(fixture.connection.detach(slot(2)));
    assert!(!fixture.connection.detach(slot(2)));
    assert!(!two.exists());
    assert_eq!(std::fs::read(two.join("file")).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let three = fixture.attach(3, text("three"));
    assert_eq!(std::fs::read_to_string(three.join("file")).unwrap(), "three");
    assert_eq!(std::fs::read_to_string(one.join("file")).unwrap(), "one");
    assert_eq!(names(&one), set(["file", "only-one"]));
    assert_eq!(names(&three), set(["file", "only-three"]));
    assert_eq!(held.metadata().unwrap().ino() >> 32, 2, "what is open stays what it was");
}

#[test]
fn a_slot_serves_one_layer_only() {
    let Some((fixture, path)) = mounted(text("first")) else { return };
    let again = || fixture.connection.attach(slot(1), std::sync::Arc::new(text("second")));
    assert!(matches!(again(), Err(AttachError::SlotUsed(_))));
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "first");
    fixture.connection.detach(slot(1));
    assert!(matches!(again(), Err(AttachError::SlotUsed(_))));
    assert!(!fixture.connection.is_attached(slot(1)));
}

#[test]
fn what_is_open_in_a_detached_layer_is_stale_where_the_kernel_has_nothing() {
    let mut layer = text("x");
    layer.file("cold", 0o644, crate::memory::Content::Pattern(100_000));
    let Some((fixture, path)) = mounted(layer) else { return };
    let cold = std::fs::File::open(path.join("cold")).unwrap();
    let dir = std::fs::File::open(&path).unwrap();
    fixture.connection.detach(slot(1));
    let mut buf = [0; 10];
    let read = std::os::unix::fs::FileExt::read_at(&cold, &mut buf, 50_000).unwrap_err();
    assert!(matches!(read.raw_os_error(), Some(libc::ESTALE | libc::EIO)), "{read}");
    let lookup =
        nix::fcntl::openat(&dir, "only-x", nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty());
    assert_eq!(lookup.unwrap_err(), nix::errno::Errno::ESTALE);
}

#[test]
fn the_kernel_lets_go_of_a_detached_layer() {
    let Some((fixture, path)) = mounted(text("x")) else { return };
    std::fs::read(path.join("file")).unwrap();
    let dir = nix::fcntl::open(
        fixture.connection.mountpoint(),
        nix::fcntl::OFlag::O_PATH,
        nix::sys::stat::Mode::empty(),
    )
    .unwrap();
    fixture.connection.detach(slot(1));
    std::thread::sleep(Duration::from_millis(50));
    drop(dir);
    // With no dentry of the layer left, nothing but this test's own use keeps the mount busy.
    fixture.connection.unmount().unwrap();
    assert!(!fixture.connection.is_served());
}
