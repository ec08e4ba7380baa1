//! Layers below an overlay, as containers have them.

use std::{
    fs::Permissions,
    io::Write,
    os::unix::{
        fs::{FileExt, MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use estargz::Kind;

use crate::{
    fixture::{Fixture, connect, mounted},
    memory::{Content, MemoryLayer, pattern},
};

const NOBODY: u32 = 65_534;

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        path.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn whiteouts_and_opaque_directories_hide_what_is_below() {
    let mut below = MemoryLayer::new();
    below
        .text("a/gone", "1")
        .text("a/kept", "1")
        .text("a/tree/deep", "1")
        .text("b/hidden", "1")
        .text("c/both", "1");
    let mut above = MemoryLayer::new();
    above.device("a/gone", Kind::Char, (0, 0)).device("a/tree", Kind::Char, (0, 0));
    above.text("b/new", "2").change("b", |a| a.opaque = true).text("c/both", "2").text("c/more", "2");
    let Some(mut fixture) = connect() else { return };
    let (below, above) = (fixture.attach(1, below), fixture.attach(2, above));
    let merged = fixture.overlay(&[&above, &below], false);
    assert_eq!(names(&merged), ["a", "b", "c"]);
    assert_eq!(names(&merged.join("a")), ["kept"]);
    assert!(!merged.join("a/gone").exists() && !merged.join("a/tree/deep").exists());
    assert_eq!(names(&merged.join("b")), ["new"]);
    assert!(!merged.join("b/hidden").exists());
    assert_eq!(names(&merged.join("c")), ["both", "more"]);
    assert_eq!(std::fs::read_to_string(merged.join("c/both")).unwrap(), "2");
    assert_eq!(std::fs::read_to_string(merged.join("a/kept")).unwrap(), "1");
}

#[test]
fn writing_in_a_container_copies_up_and_leaves_the_layer_alone() {
    let mut layer = MemoryLayer::new();
    layer.file("dir/big", 0o640, Content::Pattern(3_000_000)).xattr("dir/big", "user.kept", b"value");
    layer
        .change("dir/big", |a| (a.uid, a.gid) = (1000, 1001))
        .text("dir/file", "old")
        .link("link", "dir/file");
    layer.dir("empty", 0o700);
    let Some((mut fixture, layer)) = mounted(layer) else { return };
    let merged = fixture.overlay(&[&layer], true);
    let big = std::fs::File::options().write(true).read(true).open(merged.join("dir/big")).unwrap();
    big.write_all_at(b"!", 1_000_000).unwrap();
    let mut bytes = vec![0; 3_000_000];
    big.read_exact_at(&mut bytes, 0).unwrap();
    let expected = |at: usize| if at == 1_000_000 { b'!' } else { pattern(at as u64) };
    assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == expected(at)));
    let copied = merged.join("dir/big").metadata().unwrap();
    assert_eq!((copied.mode() & 0o7777, copied.uid(), copied.gid()), (0o640, 1000, 1001));
    assert_eq!(
        xattr::get(merged.join("dir/big"), "user.kept").unwrap().as_deref(),
        Some(b"value".as_slice())
    );

    std::fs::OpenOptions::new()
        .append(true)
        .open(merged.join("dir/file"))
        .unwrap()
        .write_all(b" new")
        .unwrap();
    assert_eq!(std::fs::read_to_string(merged.join("link")).unwrap(), "old new");
    std::fs::remove_file(merged.join("link")).unwrap();
    std::fs::remove_dir(merged.join("empty")).unwrap();
    std::fs::set_permissions(merged.join("dir"), Permissions::from_mode(0o711)).unwrap();
    std::fs::rename(merged.join("dir/file"), merged.join("moved")).unwrap();
    assert_eq!(names(&merged), ["dir", "moved"]);
    assert_eq!(names(&layer), ["dir", "empty", "link"]);
    assert_eq!(std::fs::read_to_string(layer.join("dir/file")).unwrap(), "old");
    assert_eq!(layer.join("dir").metadata().unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn inode_numbers_stay_when_a_file_is_copied_up() {
    let mut layer = MemoryLayer::new();
    layer.text("file", "old");
    let Some((mut fixture, layer)) = mounted(layer) else { return };
    let merged = fixture.overlay(&[&layer], true);
    let before = merged.join("file").metadata().unwrap().ino();
    std::fs::write(merged.join("file"), "new").unwrap();
    assert_eq!(merged.join("file").metadata().unwrap().ino(), before);
}

fn program(name: &str) -> Vec<u8> {
    let path =
        ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(name)).into_iter().find(|path| path.exists());
    std::fs::read(path.unwrap()).unwrap()
}

/// What a program prints when it is run as a user without rights; None if it failed.
fn run_as(user: u32, program: &Path, arguments: &[&Path]) -> Option<String> {
    let output = Command::new(program).args(arguments).uid(user).gid(user).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn set_user_id_and_file_capabilities_work_for_other_users() {
    let mut layer = MemoryLayer::new();
    for (path, perm, name) in [
        ("bin/id", 0o755, "id"),
        ("bin/setuid-id", 0o4755, "id"),
        ("bin/cat", 0o755, "cat"),
        ("bin/capable-cat", 0o755, "cat"),
        ("bin/locked-id", 0o700, "id"),
    ] {
        layer.file(path, perm, Content::Bytes(program(name)));
    }
    // struct vfs_cap_data: version 2, effective; permitted: CAP_DAC_READ_SEARCH.
    let capability = [0x0200_0001_u32, 1 << 2, 0, 0, 0].map(u32::to_le_bytes).concat();
    layer.xattr("bin/capable-cat", "security.capability", &capability);
    let Some((mut fixture, layer)) = mounted(layer) else { return };
    let merged = fixture.overlay(&[&layer], true);
    let secret = fixture.dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();

    let user = Path::new("-u");
    let bin = merged.join("bin");
    assert_eq!(run_as(NOBODY, &bin.join("id"), &[user]).unwrap().trim(), "65534");
    assert_eq!(run_as(NOBODY, &bin.join("setuid-id"), &[user]).unwrap().trim(), "0");
    assert_eq!(run_as(NOBODY, &bin.join("cat"), &[&secret]), None);
    assert_eq!(run_as(NOBODY, &bin.join("capable-cat"), &[&secret]).unwrap(), "secret");
    let locked = Command::new(bin.join("locked-id")).uid(NOBODY).output().unwrap_err();
    assert_eq!(locked.raw_os_error(), Some(libc::EACCES));
}

/// A POSIX ACL as `system.posix_acl_*` holds it: tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        bytes.extend(tag.to_le_bytes().into_iter().chain(perm.to_le_bytes()).chain(id.to_le_bytes()));
    }
    bytes
}

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const SOMEBODY: u32 = 1234;

/// Files with ACLs: name, mode with the mask as group bits, attribute.
fn acls() -> Vec<(&'static str, Kind, u16, &'static str, Vec<u8>)> {
    let none = u32::MAX;
    let (owner, user, group, mask, other) = (1, 2, 4, 0x10, 0x20);
    let entries = |of_nobody, of_other, of_mask| {
        acl(&[
            (owner, 6, none),
            (user, of_nobody, NOBODY),
            (group, 0, none),
            (mask, of_mask, none),
            (other, of_other, none),
        ])
    };
    let usable_dir =
        acl(&[(owner, 7, none), (user, 7, NOBODY), (group, 0, none), (mask, 7, none), (other, 5, none)]);
    vec![
        ("allowed", Kind::Reg, 0o640, ACCESS, entries(4, 0, 4)),
        ("masked", Kind::Reg, 0o600, ACCESS, entries(4, 0, 0)),
        ("denied", Kind::Reg, 0o644, ACCESS, entries(0, 4, 4)),
        ("inheriting", Kind::Dir, 0o777, DEFAULT, usable_dir),
    ]
}

fn acl_layer() -> MemoryLayer {
    let mut layer = MemoryLayer::new();
    for (name, kind, perm, attribute, value) in acls() {
        match kind {
            Kind::Dir => layer.dir(name, perm),
            _ => layer.file(name, perm, Content::Bytes(b"text".to_vec())),
        };
        layer.xattr(name, attribute, &value);
    }
    layer
}

/// The same on the local file system.
fn acl_tree(dir: &Path) -> PathBuf {
    let dir = dir.join("native");
    std::fs::create_dir(&dir).unwrap();
    for (name, kind, perm, attribute, value) in acls() {
        let path = dir.join(name);
        match kind {
            Kind::Dir => std::fs::create_dir(&path).unwrap(),
            _ => std::fs::write(&path, "text").unwrap(),
        }
        std::fs::set_permissions(&path, Permissions::from_mode(perm.into())).unwrap();
        xattr::set(&path, attribute, &value).unwrap();
    }
    dir
}

/// Everything that ACLs decide about, as one text.
fn acl_behaviour(merged: &Path) -> String {
    let cat = Path::new("/bin/cat");
    let mut report = String::new();
    for name in ["allowed", "masked", "denied"] {
        for user in [NOBODY, SOMEBODY] {
            let read = run_as(user, cat, &[&merged.join(name)]);
            report += &format!("{name} by {user}: {read:?}\n");
        }
        report += &format!("{name}: {:?}\n", xattr::get(merged.join(name), ACCESS).unwrap());
    }
    for name in ["new", "sub"] {
        let path = merged.join("inheriting").join(name);
        if name == "new" {
            std::fs::write(&path, "").unwrap()
        } else {
            std::fs::create_dir(&path).unwrap()
        }
        let mode = path.metadata().unwrap().mode();
        report += &format!("{name}: {mode:o} {:?}\n", xattr::get(&path, ACCESS).unwrap());
        report += &format!("{name}: {:?}\n", xattr::get(&path, DEFAULT).unwrap());
    }
    // Copying up keeps the ACL.
    std::fs::OpenOptions::new().append(true).open(merged.join("allowed")).unwrap().write_all(b"!").unwrap();
    report + &format!("copied: {:?}\n", xattr::get(merged.join("allowed"), ACCESS).unwrap())
}

#[test]
fn acls_are_enforced_as_on_the_local_file_system() {
    let Some((mut fixture, layer)) = mounted(acl_layer()) else { return };
    let native = acl_tree(fixture.dir.path());
    let native = fixture.overlay(&[&native], true);
    let merged = fixture.overlay(&[&layer], true);
    let expected = acl_behaviour(&native);
    assert!(expected.contains("allowed by 65534: Some") && expected.contains("denied by 65534: None"));
    assert_eq!(acl_behaviour(&merged), expected);
}

/// The layer's own directory, as a bind mount of a snapshot with one layer shows it.
#[test]
fn acls_are_enforced_without_an_overlay() {
    let Some((fixture, layer)) = mounted(acl_layer()) else { return };
    let shown = bind(&fixture, &layer);
    let read = |user, name: &str| run_as(user, Path::new("/bin/cat"), &[&shown.join(name)]).is_some();
    let outcome = [
        read(NOBODY, "allowed"),
        read(SOMEBODY, "allowed"),
        read(NOBODY, "masked"),
        read(NOBODY, "denied"),
        read(SOMEBODY, "denied"),
    ];
    nix::mount::umount2(&shown, nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!(outcome, [true, false, false, false, true]);
}

fn bind(fixture: &Fixture, layer: &Path) -> PathBuf {
    let shown = fixture.dir.path().join("view");
    std::fs::create_dir(&shown).unwrap();
    std::fs::set_permissions(fixture.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let flags = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(layer), &shown, None::<&str>, flags, None::<&str>).unwrap();
    shown
}

/// What a walk over warm files costs in messages, for root and for another user.
#[test]
fn warm_files_cost_no_message_whoever_reads() {
    let mut layer = MemoryLayer::new();
    (0..100).for_each(|i| {
        layer.text(&format!("dir{}/file{i}", i % 10), "text");
    });
    let Some((mut fixture, layer)) = mounted(layer) else { return };
    let merged = fixture.overlay(&[&layer], true);
    let walk = |user: u32| {
        let files = merged.read_dir().unwrap().flat_map(|dir| dir.unwrap().path().read_dir().unwrap());
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
        assert_eq!(run_as(user, Path::new("/bin/cat"), &files).unwrap(), "text".repeat(100));
    };
    let mut last = fixture.connection.counters();
    for (user, name) in [(0, "root cold"), (0, "root warm"), (SOMEBODY, "user cold"), (SOMEBODY, "user warm")]
    {
        walk(user);
        let now = fixture.connection.counters();
        println!(
            "{name}: {} lookups, {} getattrs, {} readdirpluses, {} getxattrs, {} reads",
            now.lookups - last.lookups,
            now.getattrs - last.getattrs,
            now.readdirpluses - last.readdirpluses,
            now.getxattrs - last.getxattrs,
            now.reads - last.reads,
        );
        if name.ends_with("warm") {
            assert_eq!(now, last, "{name}");
        }
        last = now;
    }
}

#[test]
fn an_overlay_of_120_layers_mounts() {
    let Some(fixture) = connect() else { return };
    for number in 1..=120 {
        let mut layer = MemoryLayer::new();
        layer.text(&format!("of {number}"), "x").text("of all", &number.to_string());
        fixture.attach(number, layer);
    }
    // A page holds the mount options. containerd shortens what all paths share with a working directory, here the one
    // of a thread that does not share its own.
    let merged = fixture.dir.path().join("merged");
    std::fs::create_dir(&merged).unwrap();
    let shared = fixture.connection.mountpoint().to_owned();
    let target = merged.clone();
    let mount = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
        std::env::set_current_dir(shared).unwrap();
        let lower: Vec<_> = (1..=120).rev().map(|number| number.to_string()).collect();
        let data = format!("lowerdir={}", lower.join(":"));
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("overlay"), &target, Some("overlay"), none, Some(data.as_str())).unwrap();
    };
    std::thread::spawn(mount).join().unwrap();
    let found = (names(&merged).len(), std::fs::read_to_string(merged.join("of all")));
    nix::mount::umount2(&merged, nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!((found.0, found.1.unwrap().as_str()), (121, "120"));
}
