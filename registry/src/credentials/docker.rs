//! Docker's configuration file: `config.json` with `auths`, `credHelpers` and `credsStore`.
//!
//! The rules are those of docker/cli `cli/config`: a helper named for the host, else the store, else the
//! entries of the file; a key may be a host or a URL whose path is ignored; docker.io's key is
//! `https://index.docker.io/v1/`. Where a helper knows nothing the file's own entry is used too, which
//! other tools do and Docker does not. The file is read again when it has changed.

use std::{
    collections::HashMap,
    env, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{CredentialError, CredentialQuery, CredentialSource, Credentials, Secret, helper_protocol};

/// The key under which docker.io's credentials are kept.
const DOCKER_IO_KEY: &str = "https://index.docker.io/v1/";
/// No sane configuration is larger.
const MAX_FILE: u64 = 4 << 20;
/// How long a helper may take; it may have to ask a cloud's metadata service.
const HELPER_TIMEOUT: Duration = Duration::from_secs(15);

/// `config.json` as a source of credentials.
#[derive(Debug)]
pub struct DockerConfig {
    path: PathBuf,
    helper_timeout: Duration,
    cached: Mutex<Option<(Stamp, Arc<File>)>>,
}

/// What tells a changed file from an unchanged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: String,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Text,
    #[serde(default)]
    username: Text,
    #[serde(default)]
    password: Text,
    #[serde(default, rename = "identitytoken")]
    identity_token: Text,
    #[serde(default, rename = "registrytoken")]
    registry_token: Text,
}

/// A text that may be secret; `null` is the empty one.
#[derive(Default, Deserialize)]
#[serde(from = "Option<String>")]
struct Text(String);

// === impl DockerConfig ===

impl DockerConfig {
    /// The file at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), helper_timeout: HELPER_TIMEOUT, cached: Mutex::new(None) }
    }

    /// The file that Docker would use: in `$DOCKER_CONFIG`, else in `.docker` of the home directory.
    /// `None` if there is neither.
    pub fn from_environment() -> Option<Self> {
        let directory = match env::var_os("DOCKER_CONFIG") {
            Some(directory) if !directory.is_empty() => PathBuf::from(directory),
            _ => env::home_dir()?.join(".docker"),
        };
        Some(Self::new(directory.join("config.json")))
    }

    /// The same with another time-out for credential helpers.
    #[must_use]
    pub fn with_helper_timeout(mut self, timeout: Duration) -> Self {
        self.helper_timeout = timeout;
        self
    }

    /// The file's content, read again if it has changed; empty if there is no file.
    fn load(&self) -> Result<Arc<File>, CredentialError> {
        let failed = |cause: io::Error| {
            CredentialError::new(format!("cannot read the Docker configuration {}", self.path.display()))
                .caused_by(cause)
        };
        let stamp = match fs::metadata(&self.path) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Arc::default());
            }
            Err(error) => return Err(failed(error)),
        };
        if let Some((known, file)) = &*self.cached.lock()
            && *known == stamp
        {
            return Ok(file.clone());
        }
        if stamp.len > MAX_FILE {
            return Err(CredentialError::new(format!(
                "{} is too large to be a configuration",
                self.path.display()
            )));
        }
        let file = Arc::new(parse(&fs::read(&self.path).map_err(failed)?, &self.path)?);
        *self.cached.lock() = Some((stamp, file.clone()));
        Ok(file)
    }
}

#[async_trait]
impl CredentialSource for DockerConfig {
    fn describe(&self) -> String {
        format!("Docker configuration {}", self.path.display())
    }

    async fn credentials(&self, query: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError> {
        let file = self.load()?;
        let key = if query.host == "docker.io" { DOCKER_IO_KEY } else { query.host };
        if let Some(helper) = file.helper(query.host, key) {
            let found = helper_protocol::get(helper, key, self.helper_timeout).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        file.entry(query.host, key).map_or(Ok(None), |entry| entry.credentials(query.host, &self.path))
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

// === impl File ===

impl File {
    fn helper(&self, host: &str, key: &str) -> Option<&str> {
        let named = self.helpers.get(key).or_else(|| self.helpers.get(host));
        named
            .filter(|name| !name.is_empty())
            .or(Some(&self.store))
            .filter(|name| !name.is_empty())
            .map(String::as_str)
    }

    /// The entry for `host`: by its exact key, else by any key that means the same host.
    fn entry(&self, host: &str, key: &str) -> Option<&Entry> {
        let exact = self.auths.get(key).or_else(|| self.auths.get(host));
        if let Some(entry) = exact.filter(|entry| !entry.is_empty()) {
            return Some(entry);
        }
        let mut same: Vec<_> = self
            .auths
            .iter()
            .filter(|(key, entry)| canonical_host(key) == canonical_host(host) && !entry.is_empty())
            .collect();
        // The map has no order; the shortest key is the most general one.
        same.sort_by_key(|(key, _)| (key.len(), key.as_str()));
        same.first().map(|(_, entry)| *entry)
    }
}

/// The host in a key, which may be a URL; all names of docker.io are one.
fn canonical_host(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match key.split_once('/').map_or(key, |(host, _)| host) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

// === impl Entry ===

impl Entry {
    fn is_empty(&self) -> bool {
        [&self.auth, &self.username, &self.password, &self.identity_token, &self.registry_token]
            .iter()
            .all(|text| text.0.is_empty())
    }

    fn credentials(&self, host: &str, path: &Path) -> Result<Option<Credentials>, CredentialError> {
        if !self.registry_token.0.is_empty() {
            return Ok(Some(Credentials::RegistryToken(Secret::new(&self.registry_token.0))));
        }
        if !self.identity_token.0.is_empty() {
            return Ok(Some(Credentials::IdentityToken(Secret::new(&self.identity_token.0))));
        }
        let (username, password) = if self.auth.0.is_empty() {
            (self.username.0.clone(), self.password.0.clone())
        } else {
            decode_auth(&self.auth.0).ok_or_else(|| {
                CredentialError::new(format!(
                    "the auth entry for {host} in {} is malformed; log in again",
                    path.display()
                ))
            })?
        };
        Ok(Some(Credentials::Password { username, password: Secret::new(password) }))
    }
}

/// `base64(user:password)`; the password may be padded with NUL bytes (docker/cli `decodeAuth`).
fn decode_auth(auth: &str) -> Option<(String, String)> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = GeneralPurpose::new(&alphabet::STANDARD, config).decode(auth.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_matches('\0').to_owned()))
}

fn parse(text: &[u8], path: &Path) -> Result<File, CredentialError> {
    // The parser's own message may quote the file, which holds secrets.
    serde_json::from_slice(text).map_err(|error| {
        let (path, line, column) = (path.display(), error.line(), error.column());
        CredentialError::new(format!(
            "{path} is not a Docker configuration: see line {line}, column {column}"
        ))
    })
}

// === impl Text ===

impl From<Option<String>> for Text {
    fn from(text: Option<String>) -> Self {
        Self(text.unwrap_or_default())
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests;
