//! Every kind of writing is refused with EROFS.

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};

use crate::{fixture::mounted, memory::MemoryLayer};

type Attempt = (&'static str, fn(&Path) -> io::Result<()>);

const ATTEMPTS: [Attempt; 21] = [
    ("open for writing", |path| File::options().write(true).open(path.join("file")).map(drop)),
    ("open to append", |path| File::options().append(true).open(path.join("file")).map(drop)),
    ("truncate at open", |path| File::create(path.join("file")).map(drop)),
    ("create", |path| File::create(path.join("new")).map(drop)),
    ("create exclusively", |path| File::create_new(path.join("new")).map(drop)),
    ("O_TMPFILE", |path| OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(path).map(drop)),
    ("truncate", |path| Ok(nix::unistd::truncate(&path.join("file"), 1)?)),
    ("chmod", |path| std::fs::set_permissions(path.join("file"), Permissions::from_mode(0o600))),
    ("chown", |path| std::os::unix::fs::chown(path.join("file"), Some(1), Some(1))),
    ("lchown", |path| std::os::unix::fs::lchown(path.join("link"), Some(1), Some(1))),
    ("utimes", |path| {
        let now = nix::sys::time::TimeSpec::UTIME_NOW;
        Ok(utimensat(nix::fcntl::AT_FDCWD, &path.join("file"), &now, &now, UtimensatFlags::FollowSymlink)?)
    }),
    ("mkdir", |path| std::fs::create_dir(path.join("new"))),
    ("rmdir", |path| std::fs::remove_dir(path.join("dir"))),
    ("unlink", |path| std::fs::remove_file(path.join("file"))),
    ("rename", |path| std::fs::rename(path.join("file"), path.join("new"))),
    ("rename over", |path| std::fs::rename(path.join("file"), path.join("link"))),
    ("link", |path| std::fs::hard_link(path.join("file"), path.join("new"))),
    ("symlink", |path| std::os::unix::fs::symlink("x", path.join("new"))),
    ("mknod", |path| Ok(mknod(&path.join("new"), SFlag::S_IFIFO, Mode::S_IRUSR, 0)?)),
    ("setxattr", |path| xattr::set(path.join("file"), "user.new", b"x")),
    ("removexattr", |path| xattr::remove(path.join("file"), "user.old")),
];

fn layer() -> MemoryLayer {
    let mut layer = MemoryLayer::new();
    layer.text("file", "text").link("link", "file").dir("dir", 0o777).xattr("file", "user.old", b"v");
    layer
}

fn assert_refused(path: &Path) {
    for (what, attempt) in ATTEMPTS {
        let error = attempt(path).expect_err(what);
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
    }
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "text");
    assert_eq!(xattr::get(path.join("file"), "user.old").unwrap().as_deref(), Some(b"v".as_slice()));
}

#[test]
fn the_kernel_refuses_without_asking() {
    let Some((fixture, path)) = mounted(layer()) else { return };
    assert_refused(&path);
    assert_eq!(fixture.connection.counters().refused, 0);
    assert_eq!(
        std::fs::create_dir(fixture.connection.mountpoint().join("9")).unwrap_err().raw_os_error(),
        Some(libc::EROFS)
    );
}

#[test]
fn a_mount_made_writable_refuses_too() {
    let Some((fixture, path)) = mounted(layer()) else { return };
    let remount = nix::mount::MsFlags::MS_REMOUNT;
    nix::mount::mount(None::<&str>, fixture.connection.mountpoint(), None::<&str>, remount, None::<&str>)
        .unwrap();
    for (what, attempt) in ATTEMPTS {
        // Nothing is sent at open, so that only a write finds out.
        if what.starts_with("open") {
            continue;
        }
        let error = attempt(&path).expect_err(what);
        // O_TMPFILE is refused by name: the file system does not have it.
        let expected = if what == "O_TMPFILE" { libc::EOPNOTSUPP } else { libc::EROFS };
        assert_eq!(error.raw_os_error(), Some(expected), "{what}: {error}");
    }
    let file = File::options().write(true).open(path.join("file")).unwrap();
    let written = std::os::unix::fs::FileExt::write_at(&file, b"YYYY", 0);
    assert!(written.is_err() || file.sync_all().is_err());
    assert!(fixture.connection.counters().refused > 10);
}
