//! Which login of a list is meant for an image: kubelet's rules.
//!
//! A key is a host, perhaps with a port and a path. Each label of the host may be a glob, a port must be
//! equal, and a path is a prefix of the repository's. All logins whose keys match are given, the longest
//! path first (k8s.io/kubernetes `pkg/credentialprovider/keyring.go`: `Add`, `Lookup`, `URLsMatch`).

use std::{collections::VecDeque, sync::Arc};

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
    entries: Vec<Entry>,
}

/// A key and what it means, the login, and who gave it.
type Entry = (String, Pattern, Credentials, Arc<str>);

// === impl Keyring ===

impl Keyring {
    /// A keyring of `logins`, each under its key. Keys that are no host are left out.
    pub(super) fn new(logins: impl IntoIterator<Item = (String, Credentials)>) -> Self {
        let nobody = Arc::<str>::default();
        Self::of_owners(logins.into_iter().map(|(key, login)| (nobody.clone(), key, login)))
    }

    /// The same with logins of several owners, who are first.
    pub(super) fn of_owners(logins: impl IntoIterator<Item = (Arc<str>, String, Credentials)>) -> Self {
        let entry = |(owner, key, login): (Arc<str>, String, Credentials)| {
            let key = plain_key(&key)?;
            Some((key.clone(), Pattern::parse(&key)?, login, owner))
        };
        let mut entries: Vec<_> = logins.into_iter().filter_map(entry).collect();
        // Backwards, so that of two keys of one host the one with more path comes first.
        entries.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        Self { entries }
    }

    /// Every login for the image, the likeliest first.
    pub(super) fn lookup(&self, host: &str, repository: &str) -> Vec<Credentials> {
        self.lookup_some(host, repository, usize::MAX)
    }

    /// At most `max` of them, shared out among their owners.
    pub(super) fn lookup_some(&self, host: &str, repository: &str, max: usize) -> Vec<Credentials> {
        let found = self.different(max, |(_, pattern, ..)| pattern.matches(host, repository));
        if found.is_empty() && is_default_registry(host) {
            return self.different(max, |(key, ..)| key == DEFAULT_REGISTRY);
        }
        found
    }

    /// At most `max` different logins of the entries that match. Each owner has a turn before one has a second, so that
    /// none can crowd out the others.
    fn different(&self, max: usize, matches: impl Fn(&Entry) -> bool) -> Vec<Credentials> {
        let mut owners: Vec<(&str, VecDeque<&Credentials>)> = Vec::new();
        for (_, _, login, owner) in self.entries.iter().filter(|entry| matches(entry)) {
            match owners.iter_mut().find(|(other, _)| *other == &**owner) {
                Some((_, logins)) => logins.push_back(login),
                None => owners.push((owner, [login].into())),
            }
        }
        let mut found: Vec<Credentials> = Vec::new();
        while !owners.is_empty() && found.len() < max {
            for (_, logins) in &mut owners {
                // What somebody else has had a turn with takes none away.
                let next = std::iter::from_fn(|| logins.pop_front()).find(|login| !found.contains(login));
                found.extend(next.filter(|_| found.len() < max).cloned());
            }
            owners.retain(|(_, logins)| !logins.is_empty());
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
