//! What overlayfs can do on this kernel and in this directory, found out once at start.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use nix::{
    dir::Dir,
    fcntl::OFlag,
    sys::{
        stat::Mode,
        statfs::{self, FsType},
        utsname,
    },
};

/// The options that end every overlay mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OverlayOptions {
    /// `index=off`: the same lower layers are mounted many times over with different uppers, which an inode index would
    /// refuse.
    pub index_off: bool,
    /// `userxattr`: inside a user namespace overlayfs keeps its marks in `user.overlay.*`.
    pub userxattr: bool,
}

/// Why a directory cannot hold snapshots.
#[derive(Debug, thiserror::Error)]
pub enum Unsuitable {
    /// It cannot be looked at.
    #[error("cannot examine {path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Overlayfs would show deleted files.
    #[error(
        "{0} is on a file system without d_type, which overlayfs needs: on xfs, make it anew with ftype=1"
    )]
    NoFileTypes(PathBuf),
    /// Mount options are separated by these.
    #[error(
        "the path {0:?} cannot stand in mount options: choose a root without ',', ':', '\\' and in UTF-8"
    )]
    Path(PathBuf),
}

// === impl OverlayOptions ===

impl OverlayOptions {
    /// The options for snapshots below `root`.
    pub fn detect(root: &Path) -> Self {
        Self {
            index_off: Path::new("/sys/module/overlay/parameters/index").exists(),
            userxattr: in_user_namespace() && kernel_has_userxattr() && !on_tmpfs(root),
        }
    }

    /// The options as mount options.
    pub fn options(self) -> impl Iterator<Item = &'static str> {
        let index = self.index_off.then_some("index=off");
        self.userxattr.then_some("userxattr").into_iter().chain(index)
    }
}

/// Checks that overlays can be mounted from directories below `root`, which exists and is not empty.
///
/// # Errors
/// They cannot, and why.
pub fn check(root: &Path) -> Result<(), Unsuitable> {
    let unfit = |text: &str| text.contains([',', ':', '\\']);
    if root.to_str().is_none_or(unfit) {
        return Err(Unsuitable::Path(root.to_owned()));
    }
    let failed = |error: nix::Error| Unsuitable::Io { path: root.to_owned(), source: error.into() };
    let mut directory =
        Dir::open(root, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(failed)?;
    for entry in directory.iter() {
        if entry.map_err(failed)?.file_type().is_none() {
            return Err(Unsuitable::NoFileTypes(root.to_owned()));
        }
    }
    Ok(())
}

/// Whether this process is in another user namespace than the initial one, which maps every id to itself.
pub fn in_user_namespace() -> bool {
    let Ok(map) = fs::read_to_string("/proc/self/uid_map") else { return false };
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// Since Linux 5.11. Some older kernels let overlays be mounted in a user namespace without it.
fn kernel_has_userxattr() -> bool {
    let Ok(kernel) = utsname::uname() else { return false };
    let mut numbers = kernel.release().to_str().unwrap_or_default().split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 11),
        _ => false,
    }
}

/// tmpfs has no `user.*` attributes on many kernels (tmpfs(5)).
fn on_tmpfs(path: &Path) -> bool {
    const TMPFS_MAGIC: FsType = statfs::TMPFS_MAGIC;
    fs::File::open(path)
        .and_then(|file| Ok(statfs::fstatfs(file.as_fd())?))
        .is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_containerds() {
        let both = OverlayOptions { index_off: true, userxattr: true };
        assert_eq!(both.options().collect::<Vec<_>>(), ["userxattr", "index=off"]);
        assert_eq!(OverlayOptions::default().options().count(), 0);
    }

    #[test]
    fn a_root_that_mount_options_cannot_name_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("a:b");
        fs::create_dir_all(root.join("snapshots")).unwrap();
        assert!(matches!(check(&root), Err(Unsuitable::Path(_))));
        check(parent.path()).unwrap();
    }
}
