//! A password in a file that others replace, as secrets are mounted into a container.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use super::{CredentialError, CredentialQuery, CredentialSource, Credentials, Secret, SourceKind};
use crate::{aside::Flight, regular_file};

/// No password is longer.
const MAX_FILE: u64 = 64 << 10;

/// A user of one host whose password is read from a file for each login.
#[derive(Debug, Clone)]
pub struct PasswordFile {
    host: String,
    username: String,
    path: PathBuf,
    reading: Arc<Flight<Result<Secret, CredentialError>>>,
}

// === impl PasswordFile ===

impl PasswordFile {
    /// `username` of `host`, as images name it, whose password is in the file `path`; spaces and line ends around it
    /// are not part of it.
    pub fn new(host: impl Into<String>, username: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { host: host.into(), username: username.into(), path: path.into(), reading: Arc::default() }
    }
}

fn read(path: &Path) -> Result<Secret, CredentialError> {
    let utf8 = |bytes| String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into());
    let text = regular_file::read(path, MAX_FILE).and_then(utf8).map_err(|cause| unread(path, cause))?;
    Ok(Secret::new(text.trim()))
}

fn unread(path: &Path, cause: io::Error) -> CredentialError {
    CredentialError::unread(format_args!("the password file {}", path.display()), cause)
}

#[async_trait]
impl CredentialSource for PasswordFile {
    fn describe(&self) -> String {
        format!("password file {} of {}", self.path.display(), self.host)
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Configuration
    }

    async fn credentials(&self, query: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError> {
        if query.host != self.host {
            return Ok(None);
        }
        let path = self.path.clone();
        let password = self.reading.ask(move || read(&path)).await;
        let password = password.unwrap_or_else(|cause| Err(unread(&self.path, cause)))?;
        let username = self.username.clone();
        Ok((!password.is_empty()).then_some(Credentials::Password { username, password }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let source = PasswordFile::new("example.com", "me", &path);
        let ask = |host: &'static str| {
            let source = source.clone();
            async move { source.credentials(CredentialQuery { host, repository: "a" }).await }
        };
        assert!(ask("example.com").await.unwrap_err().to_string().contains("cannot read"));
        assert_eq!(ask("example.org").await.unwrap(), None);
        for password in ["one", "two"] {
            std::fs::write(&path, format!("{password}\n")).unwrap();
            let expected = Credentials::Password { username: "me".into(), password: Secret::new(password) };
            assert_eq!(ask("example.com").await.unwrap(), Some(expected));
        }
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(ask("example.com").await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_an_error() {
        let source = PasswordFile::new("example.com", "me", "/nonexistent");
        let _hangs = source.reading.turn().await;
        let query = CredentialQuery { host: "example.com", repository: "a" };
        let error = source.credentials(query).await.unwrap_err().to_string();
        assert!(error.contains("/nonexistent: the disk does not answer"), "{error}");
    }
}
