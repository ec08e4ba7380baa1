//! The directories of ordinary snapshots: `snapshots/<id>/{fs,work}`.
//!
//! A directory appears whole (made under another name, synced, renamed) before the transaction that records its snapshot
//! commits, so a recorded snapshot always has its directory. It is deleted only after a transaction that forgot the
//! snapshot, so what is left over after a crash is a directory that no record names: [`Directories::orphans`].

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{error::SnapshotError, lazy::Owner, metadata::Kind, name::SnapshotId};

/// Modes as containerd's overlay snapshotter sets them: the root of a container is `fs`, and overlayfs wants to search
/// `work`.
const FS_MODE: u32 = 0o755;
const WORK_MODE: u32 = 0o711;

/// The directory that holds all snapshots' directories.
#[derive(Debug)]
pub struct Directories {
    root: PathBuf,
}

// === impl Directories ===

impl Directories {
    /// Opens the directory `root`, or makes it, for root's eyes only.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        Ok(Self { root })
    }

    /// Where the files of snapshot `id` are.
    pub fn upper(&self, id: SnapshotId) -> PathBuf {
        self.root.join(id.to_string()).join("fs")
    }

    /// Overlayfs' scratch directory for snapshot `id`.
    pub fn work(&self, id: SnapshotId) -> PathBuf {
        self.root.join(id.to_string()).join("work")
    }

    /// The owner of the root of snapshot `id`.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn owner(&self, id: SnapshotId) -> Result<Owner, SnapshotError> {
        let upper = self.upper(id);
        let stat = fs::symlink_metadata(&upper).map_err(SnapshotError::io("read", &upper))?;
        Ok(Owner { uid: stat.uid(), gid: stat.gid() })
    }

    /// Makes the directory of a new snapshot, on disk when this returns. To be called inside the transaction that
    /// creates it, which makes the caller the only one: anything of that id that is there already is from a failure.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn make(&self, id: SnapshotId, kind: Kind, owner: Option<Owner>) -> Result<(), SnapshotError> {
        let (new, path) = (self.root.join(format!("new-{id}")), self.root.join(id.to_string()));
        let made = remove_tree(&new)
            .and_then(|()| remove_tree(&path))
            .and_then(|()| fill(&new, kind, owner))
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| sync(&self.root));
        made.map_err(|source| {
            self.discard(id);
            SnapshotError::Io { action: "make", path, source }
        })
    }

    /// Removes what a `make` that failed left, still inside the transaction: after it another may have the same id. What
    /// a transaction leaves that fails later is an orphan.
    fn discard(&self, id: SnapshotId) {
        for name in [format!("new-{id}"), id.to_string()] {
            let path = self.root.join(name);
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove the directory of a failed snapshot");
            }
        }
    }

    /// The highest id that a directory carries.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn highest_id(&self) -> io::Result<u64> {
        let ids = self
            .names()?
            .into_iter()
            .filter_map(|name| name.strip_prefix("new-").unwrap_or(&name).parse().ok());
        Ok(ids.max().unwrap_or(0))
    }

    /// The directories that belong to none of the snapshots `ids`. To be called while nothing creates snapshots.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn orphans(&self, ids: &BTreeSet<SnapshotId>) -> Result<Vec<PathBuf>, SnapshotError> {
        let names = self.names().map_err(SnapshotError::io("list", &self.root))?;
        let known = |name: &String| name.parse().is_ok_and(|id| ids.contains(&SnapshotId::new(id)));
        Ok(names.into_iter().filter(|name| !known(name)).map(|name| self.root.join(name)).collect())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        // A name that is not text is none of ours, and is left alone.
        let names = fs::read_dir(&self.root)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }
}

fn fill(new: &Path, kind: Kind, owner: Option<Owner>) -> io::Result<()> {
    make_directory(new, 0o700)?;
    let upper = new.join("fs");
    make_directory(&upper, FS_MODE)?;
    if let Some(owner) = owner {
        std::os::unix::fs::lchown(&upper, Some(owner.uid), Some(owner.gid))?;
    }
    if kind == Kind::Active {
        make_directory(&new.join("work"), WORK_MODE)?;
    }
    sync(new)
}

/// The mode is set apart from the making, since the umask is whatever the daemon was started with.
fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Waits until the names in a directory are on disk.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes `path` and what is below it; nothing there is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(stat) if stat.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_snapshot_gets_exact_modes_and_views_no_work_directory() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::open(root.path().join("snapshots")).unwrap();
        let (active, view) = (SnapshotId::new(1), SnapshotId::new(2));
        directories.make(active, Kind::Active, None).unwrap();
        directories.make(view, Kind::View, Some(directories.owner(active).unwrap())).unwrap();
        assert_eq!((mode(&directories.upper(active)), mode(&directories.work(active))), (0o755, 0o711));
        assert_eq!(mode(&root.path().join("snapshots")), 0o700);
        assert!(directories.upper(view).exists() && !directories.work(view).exists());
    }

    #[test]
    fn what_no_record_names_is_an_orphan_and_its_number_is_known() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::open(root.path().to_owned()).unwrap();
        for id in [1, 2, 30] {
            directories.make(SnapshotId::new(id), Kind::Active, None).unwrap();
        }
        fs::create_dir(root.path().join("new-31")).unwrap();
        assert_eq!(directories.highest_id().unwrap(), 31);
        let mut orphans = directories.orphans(&BTreeSet::from([SnapshotId::new(2)])).unwrap();
        orphans.sort();
        assert_eq!(orphans, ["1", "30", "new-31"].map(|name| root.path().join(name)));
    }

    #[test]
    fn leftovers_of_a_failure_do_not_stand_in_the_way() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::open(root.path().to_owned()).unwrap();
        fs::create_dir_all(root.path().join("4/fs/left/over")).unwrap();
        fs::create_dir(root.path().join("new-4")).unwrap();
        directories.make(SnapshotId::new(4), Kind::Active, None).unwrap();
        assert!(!root.path().join("4/fs/left").exists() && !root.path().join("new-4").exists());
        directories.discard(SnapshotId::new(4));
        assert!(directories.names().unwrap().is_empty());
    }
}
