//! Docker's configuration file: `config.json` with `auths`, `credHelpers` and `credsStore`.
//!
//! The rules are those of docker/cli `cli/config`: a helper named for the host, else the store, else the
//! entries of the file; a key may be a host or a URL whose path is ignored; docker.io's key is
//! `https://index.docker.io/v1/`. Where a helper knows nothing the file's own entry is used too, which
//! other tools do and Docker does not. The file is read again when it has changed.

use std::{
    collections::HashMap,
    env, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    CredentialError, CredentialQuery, CredentialSource, Credentials, SourceKind, entry::Entry,
    helper_protocol, shared_run::SharedRuns,
};
use crate::{aside::Flight, regular_file, stamp::Stamp};

/// The key under which docker.io's credentials are kept.
const DOCKER_IO_KEY: &str = "https://index.docker.io/v1/";
/// No sane configuration is larger.
const MAX_FILE: u64 = 4 << 20;
/// How long a helper may take; it may have to ask a cloud's metadata service.
const HELPER_TIMEOUT: Duration = Duration::from_secs(15);

/// `config.json` as a source of credentials.
#[derive(Debug)]
pub struct DockerConfig {
    config: Arc<ConfigFile>,
    reading: Flight<Result<Arc<File>, CredentialError>>,
    helper_timeout: Duration,
    /// Helpers that run, by their name and the server they are asked for.
    helpers: SharedRuns<(String, String), Result<Option<Credentials>, CredentialError>>,
}

/// The file, and what it said when it was read last.
#[derive(Debug)]
struct ConfigFile {
    path: PathBuf,
    cached: Mutex<Option<(Stamp, Arc<File>)>>,
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

// === impl DockerConfig ===

impl DockerConfig {
    /// The file at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let config = Arc::new(ConfigFile { path: path.into(), cached: Mutex::new(None) });
        let (reading, helpers) = (Flight::default(), SharedRuns::default());
        Self { config, reading, helper_timeout: HELPER_TIMEOUT, helpers }
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

    /// What the file says now, or said before if the disk hangs.
    async fn load(&self) -> Result<Arc<File>, CredentialError> {
        let config = self.config.clone();
        self.reading.ask(move || config.load()).await.unwrap_or_else(|cause| {
            let known = self.config.cached.lock().as_ref().map(|(_, file)| file.clone());
            known.ok_or_else(|| self.config.unread(cause))
        })
    }
}

// === impl ConfigFile ===

impl ConfigFile {
    /// The file's content, read again if it has changed; empty if there is no file.
    fn load(&self) -> Result<Arc<File>, CredentialError> {
        let failed = |cause| self.unread(cause);
        let Some(stamp) = Stamp::read(&self.path).map_err(failed)? else { return Ok(Arc::default()) };
        if let Some((known, file)) = &*self.cached.lock()
            && *known == stamp
        {
            return Ok(file.clone());
        }
        if stamp.len() > MAX_FILE {
            return Err(CredentialError::new(format!(
                "{} is too large to be a configuration",
                self.path.display()
            )));
        }
        let file = Arc::new(parse(&regular_file::read(&self.path, MAX_FILE).map_err(failed)?, &self.path)?);
        *self.cached.lock() = Some((stamp, file.clone()));
        Ok(file)
    }

    fn unread(&self, cause: io::Error) -> CredentialError {
        CredentialError::unread(format_args!("the Docker configuration {}", self.path.display()), cause)
    }
}

#[async_trait]
impl CredentialSource for DockerConfig {
    fn describe(&self) -> String {
        format!("Docker configuration {}", self.config.path.display())
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Docker
    }

    async fn credentials(&self, query: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError> {
        let file = self.load().await?;
        let key = if query.host == "docker.io" { DOCKER_IO_KEY } else { query.host };
        if let Some(helper) = file.helper(query.host, key) {
            let run = || helper_protocol::get(helper, key, self.helper_timeout);
            let found = self.helpers.ask(&(helper.to_owned(), key.to_owned()), run).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        let Some(entry) = file.entry(query.host, key) else { return Ok(None) };
        let malformed = || {
            CredentialError::new(format!(
                "the auth entry for {} in {} is malformed; log in again",
                query.host,
                self.config.path.display()
            ))
        };
        entry.credentials().ok_or_else(malformed).map(Some)
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

fn parse(text: &[u8], path: &Path) -> Result<File, CredentialError> {
    // The parser's own message may quote the file, which holds secrets.
    serde_json::from_slice(text).map_err(|error| {
        let (path, line, column) = (path.display(), error.line(), error.column());
        CredentialError::new(format!(
            "{path} is not a Docker configuration: see line {line}, column {column}"
        ))
    })
}

#[cfg(test)]
mod tests;
