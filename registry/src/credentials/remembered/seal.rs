//! A file that only its key opens: AES-256-GCM, with the key in a file of its own that only this user may
//! read.
//!
//! It protects what is copied without the key: a backup or an image of the disk with `kept` alone. Who may
//! read the key may read the credentials. A file that was changed by one bit is not opened at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use tracing::warn;

use crate::regular_file;

/// What the file begins with: its form, which the seal covers too.
const HEAD: &[u8; 20] = b"starling credentials";
const KEY_LEN: usize = 32;
/// More than all records can be.
const MAX_FILE: u64 = 64 << 20;

/// A sealed file and its key.
#[derive(Debug)]
pub(super) struct Sealed {
    directory: PathBuf,
    /// None where nothing can be kept: then there is no file.
    key: Option<RandomizedNonceKey>,
}

/// Credentials cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    /// A file or directory cannot be used.
    #[error("cannot {action} {path}, where credentials of pulls are kept: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The cryptographic library failed.
    #[error("the system gives no random numbers to make a key of")]
    Key,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeepError + use<> {
    let path = path.to_owned();
    move |source| KeepError::Io { action, path, source }
}

// === impl Sealed ===

impl Sealed {
    /// The file `kept` in `directory`, with the key `key` beside it. Both are made if they are missing. Where that
    /// cannot be, nothing is kept, with a warning: layers are read all the same.
    pub(super) fn open(directory: &Path) -> Self {
        let key = open_key(directory).inspect_err(|error| {
            warn!(%error, "credentials of pulls are not kept: after a restart they are missing");
        });
        Self { directory: directory.to_owned(), key: key.ok() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join("kept")
    }

    /// What the file holds; `None` if there is none, or none that this key opens.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        let (path, key) = (self.path(), self.key.as_ref()?);
        let bytes = match regular_file::read(&path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %path.display(), %error, "kept credentials cannot be read and are forgotten");
                return None;
            }
        };
        let opened = unseal(key, bytes);
        if opened.is_none() {
            warn!(path = %path.display(), "kept credentials were not written with this key and are forgotten");
        }
        opened
    }

    /// Replaces what the file holds.
    pub(super) fn write(&self, text: Vec<u8>) -> Result<(), KeepError> {
        let (path, Some(key)) = (self.path(), &self.key) else { return Ok(()) };
        let sealed = seal(key, text).ok_or(KeepError::Key)?;
        replace(&path, &sealed, 0o600).map_err(failed("write", &path))
    }
}

fn seal(key: &RandomizedNonceKey, mut text: Vec<u8>) -> Option<Vec<u8>> {
    let nonce = key.seal_in_place_append_tag(Aad::from(HEAD), &mut text).ok()?;
    let nonce: &[u8; NONCE_LEN] = nonce.as_ref();
    Some([HEAD.as_slice(), nonce, &text].concat())
}

fn unseal(key: &RandomizedNonceKey, bytes: Vec<u8>) -> Option<Vec<u8>> {
    let (nonce, text) = bytes.strip_prefix(HEAD)?.split_first_chunk::<NONCE_LEN>()?;
    let mut text = text.to_vec();
    let opened = key.open_in_place(Nonce::from(nonce), Aad::from(HEAD), &mut text).ok()?;
    Some(opened.to_vec())
}

/// The key in `directory`. Both are made if they are missing.
fn open_key(directory: &Path) -> Result<RandomizedNonceKey, KeepError> {
    let make = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    make.map_err(failed("make", directory))?;
    let path = directory.join("key");
    let bytes = match read_key(&path)? {
        Some(bytes) => bytes,
        None => {
            let mut bytes = [0; KEY_LEN];
            rand::fill(&mut bytes).map_err(|_| KeepError::Key)?;
            replace(&path, &bytes, 0o400).map_err(failed("write", &path))?;
            bytes
        }
    };
    RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| KeepError::Key)
}

/// The key, `None` if there is none that only this user could have read and written.
fn read_key(path: &Path) -> Result<Option<[u8; KEY_LEN]>, KeepError> {
    let stat = match fs::symlink_metadata(path) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let us = fs::metadata("/proc/self").map_err(failed("read", "/proc/self".as_ref()))?.uid();
    if !stat.is_file() || stat.mode() & 0o077 != 0 || stat.uid() != us {
        warn!(path = %path.display(), "others may have read this key; it is replaced, and what it opens is forgotten");
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(failed("read", path))?;
    Ok(bytes.try_into().ok())
}

/// The new content is there as a whole or not at all, also after a power cut.
fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let next = path.with_extension("new");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&next)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_this_user_may_read_and_nothing_is_in_clear_text() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("credentials");
        let sealed = Sealed::open(&directory);
        assert_eq!(sealed.read(), None);
        sealed.write(b"planted".to_vec()).unwrap();
        let modes = [mode(&directory), mode(&directory.join("key")), mode(&directory.join("kept"))];
        assert_eq!(modes, [0o700, 0o400, 0o600]);
        let bytes = fs::read(directory.join("kept")).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"planted"));
        assert_eq!(Sealed::open(&directory).read().unwrap(), b"planted");
        sealed.write(b"planted".to_vec()).unwrap();
        assert_ne!(fs::read(directory.join("kept")).unwrap(), bytes, "no two seals are the same");
        assert!(!format!("{sealed:?}").contains("planted"));
    }

    #[test]
    fn one_changed_bit_or_another_key_opens_nothing() {
        let root = tempfile::tempdir().unwrap();
        let sealed = Sealed::open(root.path());
        sealed.write(b"planted".to_vec()).unwrap();
        let (path, key) = (root.path().join("kept"), sealed.key.as_ref().unwrap());
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(unseal(key, changed), None, "byte {at}");
            assert_eq!(unseal(key, bytes[..at].to_vec()), None, "first {at}");
        }
        let other = tempfile::tempdir().unwrap();
        assert_eq!(unseal(&open_key(other.path()).unwrap(), bytes), None);
    }

    #[test]
    fn a_key_that_others_could_read_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let (key, kept) = (root.path().join("key"), b"planted".to_vec());
        Sealed::open(root.path()).write(kept.clone()).unwrap();
        let before = fs::read(&key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o440)).unwrap();
        let sealed = Sealed::open(root.path());
        assert_ne!(fs::read(&key).unwrap(), before);
        assert_eq!((mode(&key), sealed.read()), (0o400, None));
        sealed.write(kept.clone()).unwrap();
        assert_eq!(Sealed::open(root.path()).read(), Some(kept));
        fs::remove_file(&key).unwrap();
        fs::write(root.path().join("elsewhere"), [7; KEY_LEN]).unwrap();
        std::os::unix::fs::symlink(root.path().join("elsewhere"), &key).unwrap();
        let replaced = Sealed::open(root.path());
        assert!(fs::symlink_metadata(&key).unwrap().is_file());
        assert_eq!(replaced.read(), None);
    }

    #[test]
    fn what_cannot_be_read_or_written_is_as_good_as_nothing() {
        let kept = b"planted".to_vec();
        for name in ["key", "kept"] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join(name).join("full")).unwrap();
            let sealed = Sealed::open(root.path());
            assert_eq!(sealed.read(), None, "{name}");
            // Without a key there is nothing to write, which was said already.
            assert_eq!(sealed.write(kept.clone()).is_ok(), name == "key");
            assert_eq!(sealed.read(), None, "{name}");
        }
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        assert_eq!(Sealed::open(&root.path().join("file/credentials")).read(), None);
    }
}
