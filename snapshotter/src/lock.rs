//! One daemon for a root.
//!
//! containerd's garbage collection deletes every snapshot that its own database does not know, so two stores behind one
//! root would delete each other's. The lock is the kernel's (flock): it ends with the process, however that ends.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// A root that is this process' until the value is dropped.
#[derive(Debug)]
pub struct RootLock {
    _file: Flock<File>,
}

/// Why a root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error(
        "{root} is in use by another daemon (process {pid}): give each containerd, dockerd and buildkitd a daemon with its own --root and --address"
    )]
    InUse {
        /// The root.
        root: PathBuf,
        /// The other process, or `unknown`.
        pid: String,
    },
    /// The lock file cannot be made.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

// === impl RootLock ===

impl RootLock {
    /// Takes the root `root`, which is made if it is not there, for its owner only; one that others may enter is closed to
    /// them.
    ///
    /// # Errors
    /// Another process has it, or its lock file cannot be made, or it belongs to somebody else.
    pub fn take(root: &Path) -> Result<Self, LockError> {
        let path = root.join("lock");
        let failed = |source| LockError::Io { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                make_private(root).map_err(failed)?;
                write_pid(&mut file).map_err(failed)?;
                Ok(Self { _file: file })
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                Err(LockError::InUse { root: root.to_owned(), pid: read_pid(file) })
            }
            Err((_, error)) => Err(failed(error.into())),
        }
    }
}

/// Somebody else may have made it: kubelet makes the directories of a `hostPath` with mode 0755.
fn make_private(root: &Path) -> io::Result<()> {
    let mode = fs::metadata(root)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(root, Permissions::from_mode(mode & 0o7700))?;
    }
    Ok(())
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: File) -> String {
    let mut text = String::new();
    // A lock file that cannot be read costs the number in a message.
    let _ = file.take(20).read_to_string(&mut text);
    text.trim().parse::<u32>().map_or_else(|_| "unknown".into(), |pid| pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_and_told_who_has_the_root() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("starling");
        let first = RootLock::take(&root).unwrap();
        let message = RootLock::take(&root).unwrap_err().to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        assert!(message.contains("--root"), "{message}");
        drop(first);
        RootLock::take(&root).unwrap();
    }

    #[test]
    fn a_root_that_others_could_enter_is_closed_to_them() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let _lock = RootLock::take(root.path()).unwrap();
        assert_eq!(fs::metadata(root.path()).unwrap().permissions().mode() & 0o7777, 0o700);
    }
}
