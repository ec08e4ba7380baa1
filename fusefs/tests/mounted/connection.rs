//! Mounting, its place, predecessors, unmounting.

use std::{
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::Path,
    process::Command,
};

use fusefs::{Connection, MountError, MountOptions, UnmountError};

use crate::{
    fixture::{connect, missing, mounted},
    memory::MemoryLayer,
};

fn mounts_at(path: &Path) -> Vec<String> {
    let path = path.to_str().unwrap();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.split(' ').nth(4) == Some(path)).map(str::to_owned).collect()
}

#[test]
fn the_mount_is_named_closed_to_others_and_keeps_suid_and_devices() {
    let Some(fixture) = connect() else { return };
    let path = fixture.connection.mountpoint();
    let [line] = mounts_at(path).try_into().unwrap();
    let (of_mount, of_file_system) = line.split_once(" - ").unwrap();
    assert!(of_file_system.starts_with("fuse.starling starling ro,"), "{line}");
    for option in ["allow_other", "default_permissions", "user_id=0", "group_id=0"] {
        assert!(of_file_system.contains(option), "{line}");
    }
    assert!(!of_mount.contains("nosuid") && !of_mount.contains("nodev"), "{line}");
    let parent = path.parent().unwrap().metadata().unwrap();
    assert_eq!(parent.permissions().mode() & 0o777, 0o700);
    let device = line.split(' ').nth(2).unwrap();
    let read_ahead = std::fs::read_to_string(format!("/sys/class/bdi/{device}/read_ahead_kb")).unwrap();
    assert_eq!(read_ahead.trim(), "1024");
    let number = device.split(':').nth(1).unwrap();
    if let Ok(limit) = std::fs::read_to_string(format!("/sys/fs/fuse/connections/{number}/max_background")) {
        assert_eq!(limit.trim(), "65535");
    }
    let (fd, state) = fixture.connection.hand_over();
    assert!(fd.as_raw_fd() > 2);
    let settled = state.init;
    assert_eq!((settled.major, format!("{}:{}", state.device.0, state.device.1).as_str()), (7, device));
    assert!(settled.minor >= 31 && settled.max_readahead >= 4096 && settled.flags != 0, "{state:?}");
}

#[test]
fn a_mount_in_use_is_not_unmounted() {
    let mut layer = MemoryLayer::new();
    layer.text("file", "x");
    let Some((fixture, path)) = mounted(layer) else { return };
    let held = std::fs::File::open(path.join("file")).unwrap();
    assert!(matches!(fixture.connection.unmount(), Err(UnmountError::InUse { .. })));
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "x");
    drop(held);
    fixture.connection.unmount().unwrap();
    assert!(!fixture.connection.is_served());
    assert_eq!(mounts_at(fixture.connection.mountpoint()), Vec::<String>::new());
    assert!(matches!(fixture.connection.unmount(), Err(UnmountError::Kernel { .. })));
}

#[test]
fn a_lazy_unmount_serves_the_last_user() {
    let mut layer = MemoryLayer::new();
    layer.file("file", 0o644, crate::memory::Content::Pattern(200_000));
    let Some((fixture, path)) = mounted(layer) else { return };
    let held = std::fs::File::open(path.join("file")).unwrap();
    fixture.connection.unmount_lazily().unwrap();
    assert!(!path.exists());
    assert!(fixture.connection.is_served());
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_exact_at(&held, &mut byte, 150_000).unwrap();
    assert_eq!(byte[0], crate::memory::pattern(150_000));
    drop(held);
    let began = std::time::Instant::now();
    while fixture.connection.is_served() {
        assert!(began.elapsed().as_secs() < 5, "the connection ends with its last user");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Makes a mount that looks like ours, whose server is gone.
fn leave_a_dead_mount(path: &Path) {
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let data = format!("fd={},rootmode=040755,user_id=0,group_id=0", device.as_raw_fd());
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("starling"), path, Some("fuse.starling"), none, Some(data.as_str())).unwrap();
}

#[test]
fn dead_predecessors_are_detached() {
    if let Some(why) = missing() {
        return println!("skipped: {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    std::fs::create_dir(&path).unwrap();
    leave_a_dead_mount(&path);
    leave_a_dead_mount(&path);
    assert_eq!(path.metadata().unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    assert_eq!(mounts_at(&path).len(), 2);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let connection = Connection::mount(&path, MountOptions::default(), runtime.handle().clone()).unwrap();
    assert_eq!(mounts_at(&path).len(), 1);
    assert_eq!(path.read_dir().unwrap().count(), 0);
    connection.unmount().unwrap();
}

#[test]
fn a_place_that_does_not_fit_is_refused() {
    if let Some(why) = missing() {
        return println!("skipped: {why}");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mount = |path: &Path| Connection::mount(path, MountOptions::default(), runtime.handle().clone());
    let dir = tempfile::tempdir().unwrap();

    let taken = dir.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&taken).status().unwrap().success());
    let refused = mount(&taken);
    nix::mount::umount2(&taken, nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert!(matches!(refused, Err(MountError::Occupied { .. })), "{refused:?}");

    let shared = dir.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(matches!(mount(&shared.join("l")), Err(MountError::OpenParent { .. })));
    assert_eq!(shared.metadata().unwrap().permissions().mode() & 0o7777, 0o1777);

    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(mount(&dir.path().join("file")), Err(MountError::Mount { .. })));
    assert!(matches!(mount(&dir.path().join("file/below")), Err(MountError::Place { .. })));
    assert!(matches!(mount(Path::new("/")), Err(MountError::Place { .. })));
}
