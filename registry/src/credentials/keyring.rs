//! Which login of a list is meant for an image: kubelet's rules.
//!
//! A key is a host, perhaps with a port and a path. Each label of the host may be a glob, a port must be
//! equal, and a path is a prefix of the repository's. All logins whose keys match are given, the longest
//! path first (k8s.io/kubernetes `pkg/credentialprovider/keyring.go`: `Add`, `Lookup`, `URLsMatch`).

use super::{
    Credentials,
    pattern::{MAX_KEY, Pattern},
};

/// What docker.io is called in kubelet's default.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// Logins with the images they are for.
#[derive(Debug, Clone, Default)]
pub(super) struct Keyring {
    /// In the order in which they are tried.
    entries: Vec<(String, Pattern, Credentials)>,
}

// === impl Keyring ===

impl Keyring {
    /// A keyring of `logins`, each under its key. Keys that are no host are left out.
    pub(super) fn new(logins: impl IntoIterator<Item = (String, Credentials)>) -> Self {
        let entry = |(key, login): (String, Credentials)| {
            let key = plain_key(&key)?;
            Some((key.clone(), Pattern::parse(&key)?, login))
        };
        let mut entries: Vec<_> = logins.into_iter().filter_map(entry).collect();
        // Backwards, so that of two keys of one host the one with more path comes first.
        entries.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        Self { entries }
    }

    /// Every login for the image, the likeliest first.
    pub(super) fn lookup(&self, host: &str, repository: &str) -> Vec<Credentials> {
        let matching = self.entries.iter().filter(|(_, pattern, _)| pattern.matches(host, repository));
        let mut found: Vec<Credentials> = Vec::new();
        for (_, _, login) in matching {
            if !found.contains(login) {
                found.push(login.clone());
            }
        }
        if found.is_empty() && is_default_registry(host) {
            let hub = self.entries.iter().filter(|(key, ..)| key == DEFAULT_REGISTRY);
            found.extend(hub.map(|(_, _, login)| login.clone()).take(1));
        }
        found
    }
}

/// A key without scheme, and without the path that the registry protocol's own URLs begin with.
fn plain_key(key: &str) -> Option<String> {
    if key.len() > MAX_KEY {
        return None;
    }
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.split(['?', '#']).next().unwrap_or(key);
    let (host, path) = key.find('/').map_or((key, ""), |slash| key.split_at(slash));
    let path = if path.starts_with("/v2/") || path.starts_with("/v1/") { path.get(3..)? } else { path };
    (!host.is_empty()).then(|| if path == "/" { host.to_owned() } else { format!("{host}{path}") })
}

fn is_default_registry(host: &str) -> bool {
    matches!(host, "docker.io" | DEFAULT_REGISTRY)
}

#[cfg(test)]
mod tests;
