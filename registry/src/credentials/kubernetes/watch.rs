//! Listing secrets, and watching them from there: lines of JSON for as long as the server likes.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use serde::Deserialize;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    Known,
    access::{Api, ClusterAccess, ClusterError},
    secret::{Metadata, Name, Secret, SecretType},
};
use crate::credentials::Credentials;

/// Secrets of one page of a list.
const PAGE: &str = "250";
/// A page may take this much memory: a secret has at most 1 MiB, and ours are small.
const MAX_PAGE: usize = 64 << 20;
/// One line of a watch.
const MAX_LINE: usize = 4 << 20;
/// After this the server is asked to end a watch, in seconds; a little less than our own patience.
const WATCH_SECONDS: u64 = 480;
/// The pause after the first failure, and the longest; part of each is random.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A watch that ends before this and told nothing was none: something on the way cuts them off (as client-go has it).
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    items: Option<Vec<Secret>>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Secret,
}

/// Follows the secrets of one type, for ever.
pub(super) async fn keep_watching(
    access: ClusterAccess,
    namespace: String,
    which: SecretType,
    known: Arc<Known>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let watch = Watch { access: &access, namespace: &namespace, which, known: &known };
        let error = match watch.follow(&mut pause).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let kind = which.name();
        if known.trouble().is_none() {
            warn!(namespace, kind, %error, "secrets of Kubernetes are not up to date");
        } else {
            debug!(namespace, kind, %error, "secrets of Kubernetes are still not up to date");
        }
        known.set_trouble(which, &namespace, Some(error.to_string()));
        let jitter = rand::rng().random_range(0.5..1.5);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

struct Watch<'a> {
    access: &'a ClusterAccess,
    namespace: &'a str,
    which: SecretType,
    known: &'a Known,
}

impl Watch<'_> {
    /// Lists, and watches again and again from there, until something goes wrong.
    async fn follow(&self, pause: &mut Duration) -> Result<std::convert::Infallible, ClusterError> {
        let mut version = self.list(&self.access.open_aside().await?).await?;
        self.known.set_trouble(self.which, self.namespace, None);
        loop {
            let (began, before) = (Instant::now(), version.clone());
            let watched = self.watch(&self.access.open_aside().await?, &mut version).await;
            let lasted = began.elapsed() >= SHORTEST_WATCH;
            // A list alone is no success: it would be made again and again where watches do not work.
            if lasted || version != before {
                *pause = FIRST_PAUSE;
            }
            match watched? {
                0 if !lasted => return Err(ClusterError::new("the cluster ends watches at once".to_owned())),
                _ => {}
            }
        }
    }

    fn selector(&self) -> String {
        format!("type={}", self.which.name())
    }

    /// Takes over all secrets that there are; the version from which to watch.
    async fn list(&self, api: &Api) -> Result<String, ClusterError> {
        let (selector, mut found, mut more) = (self.selector(), Vec::new(), None::<String>);
        loop {
            let mut query = vec![("fieldSelector", selector.as_str()), ("limit", PAGE)];
            query.extend(more.as_deref().map(|more| ("continue", more)));
            let response = api.secrets(self.namespace, &query).await?;
            let list: List = serde_json::from_slice(&page(response).await?).map_err(malformed)?;
            found.extend(list.items.unwrap_or_default().into_iter().filter_map(|secret| self.logins(secret)));
            more = list.metadata.more.filter(|more| !more.is_empty());
            if more.is_none() {
                self.known.replace(self.which, self.namespace, found);
                return Ok(list.metadata.resource_version);
            }
        }
    }

    /// Takes over changes since `version`, which it moves on, until the server ends the watch; how many there were.
    async fn watch(&self, api: &Api, version: &mut String) -> Result<usize, ClusterError> {
        let (selector, seconds, from) = (self.selector(), WATCH_SECONDS.to_string(), version.clone());
        let query = [
            ("fieldSelector", selector.as_str()),
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", seconds.as_str()),
            ("resourceVersion", from.as_str()),
        ];
        let mut response = api.secrets(self.namespace, &query).await?;
        let (mut pending, mut events) = (Vec::new(), 0);
        while let Some(piece) = response.chunk().await.map_err(ClusterError::transport)? {
            pending.extend_from_slice(&piece);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if let Some(next) = self.event(&line)? {
                    (*version, events) = (next, events + 1);
                }
            }
            if pending.len() > MAX_LINE {
                return Err(ClusterError::new("the cluster sent a secret that is too large".to_owned()));
            }
        }
        Ok(events)
    }

    /// Takes over one change; its version.
    fn event(&self, line: &[u8]) -> Result<Option<String>, ClusterError> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let Event { kind, object } = serde_json::from_slice(line).map_err(malformed)?;
        let version = object.metadata.as_ref().map(|metadata| metadata.resource_version.clone());
        match kind.as_str() {
            "ADDED" | "MODIFIED" => {
                if let Some((name, logins)) = self.logins(object) {
                    self.known.change(self.which, name, logins);
                }
            }
            "DELETED" => {
                if let Some((name, _)) = self.logins(object) {
                    self.known.change(self.which, name, Vec::new());
                }
            }
            "BOOKMARK" => {}
            // The server's words are about our request; the usual one is that the version is too old.
            _ => return Err(ClusterError::new("the cluster ended the watch of its secrets".to_owned())),
        }
        Ok(version.filter(|version| !version.is_empty()))
    }

    fn logins(&self, secret: Secret) -> Option<(Name, Vec<(String, Credentials)>)> {
        let logins = secret.logins(self.which);
        Some((secret.metadata?.name?, logins))
    }
}

async fn page(mut response: reqwest::Response) -> Result<Vec<u8>, ClusterError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(ClusterError::transport)? {
        body.extend_from_slice(&piece);
        if body.len() > MAX_PAGE {
            return Err(ClusterError::new("the cluster's list of secrets is too large".to_owned()));
        }
    }
    Ok(body)
}

/// The parser's own message may quote a secret.
fn malformed(_: serde_json::Error) -> ClusterError {
    ClusterError::new("the cluster's answer is malformed".to_owned())
}
