//! The mount itself: the place, the dead predecessor, mount(2), read-ahead.
//!
//! We call mount(2) ourselves, not through fusermount or fuser: both add `nosuid` and `nodev`, with which set-user-id
//! programs and devices of images do not work, and fuser unmounts when its session is dropped.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags};

use super::{MountError, mountinfo};

/// Source and subtype of the mount, as `mount` and `df` show them.
const NAME: &str = "starling";
const FILE_SYSTEM: &str = "fuse.starling";
const STICKY: u32 = 0o1000;

/// The mount point's path without symbolic links. What is mounted there is not touched: its server may be dead.
pub(super) fn locate(mountpoint: &Path) -> Result<PathBuf, MountError> {
    let place = |source| MountError::Place { path: mountpoint.to_owned(), source };
    let absolute = std::path::absolute(mountpoint).map_err(place)?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(place(io::ErrorKind::InvalidInput.into()));
    };
    DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(place)?;
    Ok(parent.canonicalize().map_err(place)?.join(name))
}

/// Makes a directory ready to be mounted on: it exists, only its owner gets to it, and nothing is mounted there.
pub(super) fn prepare(path: &Path) -> Result<(), MountError> {
    // The mount point itself must not be looked at before a dead predecessor is gone.
    detach_predecessors(path)?;
    if let Some(parent) = path.parent() {
        close_to_others(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(MountError::Place { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Device number of the mount of ours at a path.
pub(super) fn device_at(path: &Path) -> Result<Option<(u32, u32)>, MountError> {
    let place = |source| MountError::Place { path: path.to_owned(), source };
    let ours = mountinfo::at(path).map_err(place)?.filter(|mounted| mounted.file_system == FILE_SYSTEM);
    Ok(ours.and_then(|mounted| {
        let (major, minor) = mounted.device.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }))
}

/// Layers hold set-user-id programs of every image: nobody but root may reach them outside of a container.
fn close_to_others(parent: &Path) -> Result<(), MountError> {
    let open = |source| MountError::OpenParent { path: parent.to_owned(), source };
    let metadata = parent.metadata().map_err(open)?;
    if metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    // A directory that others are meant to use, or that is not ours, is not ours to close.
    if metadata.mode() & STICKY != 0
        || metadata.uid() != nix::unistd::geteuid().as_raw()
        || parent.parent().is_none()
    {
        return Err(open(io::ErrorKind::PermissionDenied.into()));
    }
    std::fs::set_permissions(parent, Permissions::from_mode(0o700)).map_err(open)
}

/// Takes away what a predecessor left mounted here. The caller's lock makes sure that none is alive.
fn detach_predecessors(path: &Path) -> Result<(), MountError> {
    let place = |source| MountError::Place { path: path.to_owned(), source };
    while let Some(mounted) = mountinfo::at(path).map_err(place)? {
        if mounted.file_system != FILE_SYSTEM {
            return Err(MountError::Occupied { path: path.to_owned(), file_system: mounted.file_system });
        }
        tracing::info!(path = %path.display(), "detaching the mount of a predecessor");
        unmount(path, true).map_err(|errno| place(errno.into()))?;
    }
    Ok(())
}

/// Mounts a new connection and returns its descriptor.
pub(super) fn mount(path: &Path) -> Result<File, MountError> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(MountError::Device)?;
    let data = format!(
        "fd={},rootmode=040755,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    );
    nix::mount::mount(Some(NAME), path, Some(FILE_SYSTEM), MsFlags::MS_RDONLY, Some(data.as_str()))
        .map_err(|errno| MountError::Mount { path: path.to_owned(), source: errno.into() })?;
    Ok(device)
}

/// Unmounts what is mounted at a path; lazily: as soon as nobody uses it.
pub(super) fn unmount(path: &Path, lazily: bool) -> nix::Result<()> {
    let how = if lazily { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    nix::mount::umount2(path, how | MntFlags::UMOUNT_NOFOLLOW)
}

/// Raises the read-ahead of what is mounted at a path. Reading works without, in smaller pieces.
pub(super) fn raise_read_ahead(path: &Path, kib: u32) {
    let raised = mountinfo::at(path).and_then(|mounted| {
        let mounted = mounted.ok_or(io::ErrorKind::NotFound)?;
        std::fs::write(format!("/sys/class/bdi/{}/read_ahead_kb", mounted.device), kib.to_string())
    });
    if let Err(error) = raised {
        tracing::warn!(path = %path.display(), kib, %error, "cannot raise the read-ahead, reads stay small");
    }
}
