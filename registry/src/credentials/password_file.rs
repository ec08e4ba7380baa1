//! A password in a file that others replace, as secrets are mounted into a container.

use std::{io, path::PathBuf};

use async_trait::async_trait;

use super::{CredentialError, CredentialQuery, CredentialSource, Credentials, Secret, SourceKind};
use crate::{aside::aside, regular_file};

/// No password is longer.
const MAX_FILE: u64 = 64 << 10;

/// A user of one host whose password is read from a file for each login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordFile {
    /// The host, as images name it.
    pub host: String,
    /// The user's name.
    pub username: String,
    /// The file; spaces and line ends around the password are not part of it.
    pub path: PathBuf,
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
        let utf8 = |bytes| String::from_utf8(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        let path = self.path.clone();
        let read = aside(move || regular_file::read(&path, MAX_FILE)).await.flatten();
        let text = read.and_then(utf8).map_err(|cause| {
            CredentialError::new(format!("cannot read the password file {}", self.path.display()))
                .caused_by(cause)
        })?;
        let (username, password) = (self.username.clone(), Secret::new(text.trim()));
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
        let source = PasswordFile { host: "example.com".into(), username: "me".into(), path: path.clone() };
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
}
