//! What the client can be told.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    backoff::RetryPolicy,
    credentials::{CredentialSource, DockerConfig},
};

/// The settings of a [`RegistryClient`](crate::RegistryClient).
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Settings of single hosts, by the host (and port) that images name.
    pub hosts: BTreeMap<String, HostConfig>,
    /// PEM files with certificate authorities to trust beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// Where credentials come from, asked in this order.
    pub credentials: Vec<Arc<dyn CredentialSource>>,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long a server may be silent, before its answer and within a body.
    pub idle_timeout: Duration,
    /// When failed requests are tried again.
    pub retry: RetryPolicy,
    /// Connections per host that read-ahead and prefetch may use together. Demand has no limit.
    pub ahead_connections: usize,
    /// Connections per host that background reads may use together.
    pub background_connections: usize,
    /// How long a redirect's target is used if neither its signature nor the redirect tells.
    pub redirect_lifetime: Duration,
    /// A blob up to this many bytes is read whole from a server that cannot serve parts.
    pub small_blob: u64,
    /// At most this many bytes are skipped to reach a range in the answer of a server that sent the whole
    /// blob.
    pub max_skip: u64,
    /// Pieces in which uploads of unknown length are sent.
    pub upload_chunk: usize,
    /// The `User-Agent` of every request.
    pub user_agent: String,
}

/// The settings of one host.
#[derive(Clone, Default)]
pub struct HostConfig {
    /// The scheme, where the rule (http for loopback hosts, https for others) does not fit.
    pub scheme: Option<Scheme>,
    /// Headers for every request to this host; never sent anywhere else.
    pub headers: Vec<(String, String)>,
}

/// How to talk to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In clear text.
    Http,
    /// With TLS.
    Https,
}

// === impl RegistryConfig ===

impl RegistryConfig {
    /// The default settings without any source of credentials.
    pub fn anonymous() -> Self {
        Self {
            hosts: BTreeMap::new(),
            ca_files: Vec::new(),
            credentials: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(20),
            retry: RetryPolicy::default(),
            ahead_connections: 8,
            background_connections: 4,
            redirect_lifetime: Duration::from_secs(300),
            small_blob: 1 << 20,
            max_skip: 64 << 20,
            upload_chunk: 16 << 20,
            user_agent: concat!("starling/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Lets `host` be talked to in clear text.
    #[must_use]
    pub fn with_insecure_host(mut self, host: &str) -> Self {
        self.hosts.entry(host.to_owned()).or_default().scheme = Some(Scheme::Http);
        self
    }
}

impl Default for RegistryConfig {
    /// The default settings with the credentials of the Docker configuration.
    fn default() -> Self {
        let docker = DockerConfig::from_environment();
        Self {
            credentials: docker
                .into_iter()
                .map(|source| Arc::new(source) as Arc<dyn CredentialSource>)
                .collect(),
            ..Self::anonymous()
        }
    }
}

// === impl HostConfig ===

impl fmt::Debug for HostConfig {
    /// Headers are often keys: only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("HostConfig").field("scheme", &self.scheme).field("headers", &names).finish()
    }
}

// === impl Scheme ===

impl Scheme {
    /// As in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{Credentials, Secret, StaticCredentials};

    #[test]
    fn settings_can_be_logged_without_showing_secrets() {
        let mut config = RegistryConfig::anonymous();
        let headers = vec![("X-Key".to_owned(), "planted".to_owned())];
        config.hosts.insert("example.com".into(), HostConfig { headers, scheme: None });
        let password = Credentials::Password { username: "me".into(), password: Secret::new("planted") };
        let hosts = vec![("example.com".to_owned(), password)];
        config.credentials.push(Arc::new(StaticCredentials { hosts }));
        let shown = format!("{config:?}");
        assert!(shown.contains("X-Key") && !shown.contains("planted"), "{shown}");
    }
}
