//! Credentials that somebody pulled an image with, remembered for reading its layers later.
//!
//! kubelet gives credentials with a pull and never again, and a lazy image is read for days. They are
//! usable while the pull is under way, kept when it succeeded and dropped when it failed. What is kept
//! outlives this process in a sealed file ([`seal`]) for at most an age limit, counted from the last pull: what is
//! older is not used, and deleted when the store is opened and about every hour.
//!
//! Invariant: credentials that were given for a repository are used for that repository only.

mod seal;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tracing::warn;

use self::seal::Sealed;
use super::{
    CredentialError, CredentialQuery, CredentialSource, Credentials, Secret, SourceKind, entry::decode_auth,
};
use crate::{aside::aside, reference::Reference};

/// More images than a node has; the one pulled longest ago is forgotten.
const MAX_KEPT: usize = 4096;
/// How often what has come of age is deleted, at most and at least; also much shorter limits than a week are kept.
const PURGE_EVERY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// A pull farther in the future was made while the clock was wrong. A clock of another time zone is not.
const MAX_AHEAD: u64 = 24 * 3600;
/// Different credentials for one repository that are tried.
const MAX_CANDIDATES: usize = 8;

/// A login as the container runtime interface gives it with a pull (`AuthConfig`).
#[derive(Debug, Clone)]
pub struct Login {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// `base64(user:password)`.
    pub auth: Secret,
    /// The registry that it is for, as a URL; any if it is empty.
    pub server_address: String,
    /// An OAuth refresh token.
    pub identity_token: Secret,
    /// A token to be sent to the registry as it is.
    pub registry_token: Secret,
}

/// Credentials of pulls as a source of credentials.
#[derive(Debug)]
pub struct RememberedCredentials {
    file: Sealed,
    max_age: Duration,
    records: Mutex<Records>,
    /// Held while the file is written, so that an older state never follows a newer one.
    saving: Mutex<()>,
}

/// A pull under way; one that is dropped before it succeeded has failed.
#[derive(Debug)]
pub struct Pull {
    store: Arc<RememberedCredentials>,
    /// Nothing where the pull is anonymous.
    id: Option<u64>,
    reference: Reference,
}

#[derive(Debug, Default)]
struct Records {
    /// The oldest first.
    kept: Vec<Record>,
    pulling: Vec<Pulling>,
    next: u64,
}

#[derive(Debug)]
struct Pulling {
    id: u64,
    reference: Reference,
    credentials: Credentials,
}

#[derive(Debug, Clone)]
struct Record {
    reference: Reference,
    /// The runtime's own name for the image.
    image: String,
    /// Seconds of the clock when it was last pulled.
    pulled: u64,
    credentials: Credentials,
    /// They were refused since: others are tried first. They are not dropped, since a registry may be wrong for a while
    /// and nobody gives them again.
    refused: bool,
}

/// A record as the file has it.
#[derive(Serialize, Deserialize)]
struct Stored {
    reference: String,
    image: String,
    pulled: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registry_token: Option<String>,
}

// === impl Login ===

impl Login {
    /// The credentials for images of `host`, if it has any for it (containerd `ParseAuth`; unlike there a
    /// server's address may lack the scheme, and a registry token counts).
    fn credentials(&self, host: &str) -> Option<Credentials> {
        if !self.server_address.is_empty() && server(&self.server_address) != server(host) {
            return None;
        }
        if !self.username.is_empty() {
            let (username, password) = (self.username.clone(), self.password.clone());
            return Some(Credentials::Password { username, password });
        }
        if !self.identity_token.is_empty() {
            return Some(Credentials::IdentityToken(self.identity_token.clone()));
        }
        if !self.auth.is_empty() {
            let (username, password) = decode_auth(self.auth.expose())?;
            return Some(Credentials::Password { username, password: Secret::new(password) });
        }
        (!self.registry_token.is_empty()).then(|| Credentials::RegistryToken(self.registry_token.clone()))
    }
}

/// The host in a server's address; all names of docker.io are one.
fn server(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

// === impl RememberedCredentials ===

impl RememberedCredentials {
    /// What is kept in `directory`, which is made for this user only. A file that cannot be read, or not be opened
    /// with the key beside it, is left out with a warning, and written anew with the next pull. Where nothing can be
    /// kept, also with a warning, credentials are remembered until the process ends.
    pub fn open(directory: &Path, max_age: Duration) -> Arc<Self> {
        let file = Sealed::open(directory);
        let (mut records, now) = (Records::default(), now());
        let mut in_file = 0;
        if let Some(text) = file.read() {
            match serde_json::from_slice::<Vec<Stored>>(&text) {
                Ok(stored) => {
                    in_file = stored.len();
                    records.kept.extend(stored.into_iter().filter_map(Record::restore));
                }
                Err(_) => warn!("the kept credentials are of an unknown form and are forgotten"),
            }
        }
        records.kept.retain(|record| record.age(now) < max_age);
        records.kept.sort_by_key(|record| record.pulled);
        let dropped = records.kept.len() < in_file;
        let (records, saving) = (Mutex::new(records), Mutex::default());
        let store = Arc::new(Self { file, max_age, records, saving });
        if dropped {
            store.save();
        }
        store
    }

    /// Deletes what has come of age, about every hour for as long as somebody has the store. Must run inside a tokio
    /// runtime.
    pub fn purge_regularly(self: &Arc<Self>) {
        let (least, most) = PURGE_EVERY;
        let (store, every) = (Arc::downgrade(self), self.max_age.clamp(least, most));
        tokio::spawn(async move {
            loop {
                sleep(every).await;
                let Some(store) = store.upgrade() else { return };
                if let Err(error) = aside(move || store.purge(now())).await {
                    warn!(%error, "credentials of pulls that have come of age are not deleted this time");
                }
            }
        });
    }

    /// Deletes what is too old, from the file too, and what was pulled in the future: it would never come of age. That
    /// is not done when the store is opened: a machine's clock may be right only a while after its start.
    fn purge(&self, now: u64) {
        let dropped = {
            let mut records = self.records.lock();
            let before = records.kept.len();
            let young = |record: &Record| record.age(now) < self.max_age;
            records.kept.retain(|record| young(record) && record.pulled.saturating_sub(now) <= MAX_AHEAD);
            records.kept.len() < before
        };
        if dropped {
            self.save();
        }
    }

    /// A pull of `reference` begins.
    pub fn begin(self: &Arc<Self>, reference: &Reference, login: &Login) -> Pull {
        let reference = reference.clone();
        let id = login.credentials(reference.host()).map(|credentials| {
            let mut records = self.records.lock();
            records.next += 1;
            let (id, reference) = (records.next, reference.clone());
            records.pulling.push(Pulling { id, reference, credentials });
            id
        });
        Pull { store: self.clone(), id, reference }
    }

    /// An image was removed: `image` is a reference or the runtime's own name for it. Writes to disk.
    pub fn forget(&self, image: &str) {
        let reference: Option<Reference> = image.parse().ok();
        let gone = |record: &Record| record.image == image || Some(&record.reference) == reference.as_ref();
        let changed = {
            let mut records = self.records.lock();
            let before = records.kept.len();
            records.kept.retain(|record| !gone(record));
            records.kept.len() < before
        };
        if changed {
            self.save();
        }
    }

    /// How many images have kept credentials.
    pub fn len(&self) -> usize {
        self.records.lock().kept.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn succeeded(&self, id: u64, image: &str, now: u64) {
        {
            let mut records = self.records.lock();
            let Some(at) = records.pulling.iter().position(|pulling| pulling.id == id) else { return };
            let Pulling { reference, credentials, .. } = records.pulling.remove(at);
            records.kept.retain(|record| record.reference != reference && record.age(now) < self.max_age);
            if records.kept.len() >= MAX_KEPT {
                records.kept.remove(0);
            }
            records.kept.push(Record {
                reference,
                image: image.to_owned(),
                pulled: now,
                credentials,
                refused: false,
            });
        }
        self.save();
    }

    fn save(&self) {
        let _saving = self.saving.lock();
        let stored: Vec<_> = self.records.lock().kept.iter().map(Record::store).collect();
        // Strings and numbers always become JSON.
        let text = serde_json::to_vec(&stored).unwrap_or_default();
        if let Err(error) = self.file.write(text) {
            warn!(%error, "credentials of pulls are not kept: after a restart they are missing");
        }
    }

    fn find(&self, query: CredentialQuery<'_>, now: u64) -> Vec<Credentials> {
        let of = |reference: &Reference| {
            reference.host() == query.host && reference.repository() == query.repository
        };
        let records = self.records.lock();
        let pulling = records.pulling.iter().rev().filter(|pulling| of(&pulling.reference));
        let kept = records.kept.iter().rev();
        let kept = kept.filter(|record| of(&record.reference) && record.age(now) < self.max_age);
        let (doubtful, kept): (Vec<_>, Vec<_>) = kept.partition(|record| record.refused);
        let kept = kept.into_iter().chain(doubtful);
        let all = pulling.map(|pulling| &pulling.credentials).chain(kept.map(|record| &record.credentials));
        let mut found: Vec<Credentials> = Vec::new();
        for credentials in all {
            if found.len() < MAX_CANDIDATES && !found.contains(credentials) {
                found.push(credentials.clone());
            }
        }
        found
    }
}

#[async_trait]
impl CredentialSource for RememberedCredentials {
    fn describe(&self) -> String {
        "credentials of pulls through the CRI image service".to_owned()
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Pulls
    }

    async fn credentials(&self, query: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError> {
        Ok(self.candidates(query).await?.into_iter().next())
    }

    async fn candidates(&self, query: CredentialQuery<'_>) -> Result<Vec<Credentials>, CredentialError> {
        Ok(self.find(query, now()))
    }

    fn refused(&self, query: CredentialQuery<'_>, credentials: &Credentials) {
        let mut records = self.records.lock();
        let of = |record: &&mut Record| {
            let reference = &record.reference;
            (reference.host(), reference.repository()) == (query.host, query.repository)
                && record.credentials == *credentials
        };
        records.kept.iter_mut().filter(of).for_each(|record| record.refused = true);
    }
}

/// Seconds of the clock, which may be wrong.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

// === impl Pull ===

impl Pull {
    /// The pull succeeded, and `image` is the runtime's own name for what was pulled. Writes to disk.
    pub fn succeeded(mut self, image: &str) {
        if let Some(id) = self.id.take() {
            self.store.succeeded(id, image, now());
        }
    }

    /// What is pulled.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.store.records.lock().pulling.retain(|pulling| pulling.id != id);
        }
    }
}

// === impl Record ===

impl Record {
    /// Its age; none if the clock went back since.
    fn age(&self, now: u64) -> Duration {
        Duration::from_secs(now.saturating_sub(self.pulled))
    }

    fn store(&self) -> Stored {
        let mut stored = Stored {
            reference: self.reference.to_string(),
            image: self.image.clone(),
            pulled: self.pulled,
            password: None,
            identity_token: None,
            registry_token: None,
        };
        match &self.credentials {
            Credentials::Password { username, password } => {
                stored.password = Some((username.clone(), password.expose().to_owned()));
            }
            Credentials::IdentityToken(token) => stored.identity_token = Some(token.expose().to_owned()),
            Credentials::RegistryToken(token) => stored.registry_token = Some(token.expose().to_owned()),
        }
        stored
    }

    fn restore(stored: Stored) -> Option<Self> {
        let password =
            |(username, password)| Credentials::Password { username, password: Secret::new(password) };
        let identity = |token: String| Credentials::IdentityToken(Secret::new(token));
        let registry = |token: String| Credentials::RegistryToken(Secret::new(token));
        let credentials = stored
            .password
            .map(password)
            .or_else(|| stored.identity_token.map(identity))
            .or_else(|| stored.registry_token.map(registry))?;
        let reference = stored.reference.parse().ok()?;
        Some(Self { reference, image: stored.image, pulled: stored.pulled, credentials, refused: false })
    }
}

#[cfg(test)]
mod tests;
