//! What the client can be told.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    backoff::RetryPolicy,
    credentials::{CredentialSource, DockerConfig},
};

pub use crate::hosts::Scheme;

/// Where containerd and Docker look for what is said of single registries.
const HOST_DIRECTORIES: [&str; 2] = ["/etc/containerd/certs.d", "/etc/docker/certs.d"];

/// The settings of a [`RegistryClient`](crate::RegistryClient).
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Settings of single hosts, by the host (and port) that images name.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Directories with a directory for each registry, as containerd's and Docker's `certs.d`; the first that says
    /// something of a registry decides. Read again while the client lives.
    pub host_directories: Vec<PathBuf>,
    /// Docker's `daemon.json`, whose mirrors and insecure registries count where nothing else is said.
    pub docker_daemon: Option<PathBuf>,
    /// How often it is looked whether such files have changed.
    pub hosts_recheck: Duration,
    /// How long a host may take to begin its answer while there is another one to ask.
    pub host_patience: Duration,
    /// For how long a host that failed once is asked last; twice as long the next time, and so on.
    pub host_penalty: Duration,
    /// For how long a mirror that sent wrong bytes is not asked at all.
    pub liar_penalty: Duration,
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
    /// The scheme, where the rule (http for loopback hosts, https for others) does not fit and no file says better.
    pub scheme: Option<Scheme>,
    /// Headers for every request to this host; never sent anywhere else.
    pub headers: Vec<(String, String)>,
    /// Hosts that have the same content, in the order in which they are asked. The host itself comes last unless it is
    /// named among them. Where there are any, files say nothing of this host.
    pub mirrors: Vec<Mirror>,
}

/// A host that has another one's content.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Mirror {
    /// The mirror's host, with its port if it needs one.
    pub host: String,
    /// The scheme, where the rule does not fit.
    pub scheme: Option<Scheme>,
    /// Headers for every request to the mirror; never sent anywhere else.
    pub headers: Vec<(String, String)>,
    /// How long it may be silent, if not as long as other hosts.
    pub silence: Option<Duration>,
}

// === impl RegistryConfig ===

impl RegistryConfig {
    /// The default settings without any source of credentials and without anything that files of this machine say.
    pub fn anonymous() -> Self {
        Self {
            hosts: BTreeMap::new(),
            host_directories: Vec::new(),
            docker_daemon: None,
            hosts_recheck: Duration::from_secs(1),
            host_patience: Duration::from_secs(5),
            host_penalty: Duration::from_secs(30),
            liar_penalty: Duration::from_secs(3600),
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

    /// Where containerd and Docker look for what is said of single registries.
    pub fn default_host_directories() -> Vec<PathBuf> {
        HOST_DIRECTORIES.iter().map(PathBuf::from).collect()
    }

    /// Lets `host` be talked to in clear text.
    #[must_use]
    pub fn with_insecure_host(mut self, host: &str) -> Self {
        self.hosts.entry(host.to_owned()).or_default().scheme = Some(Scheme::Http);
        self
    }
}

impl Default for RegistryConfig {
    /// The default settings with the credentials of the Docker configuration and with what containerd and Docker are
    /// told of registries.
    fn default() -> Self {
        let docker = DockerConfig::from_environment();
        Self {
            credentials: docker
                .into_iter()
                .map(|source| Arc::new(source) as Arc<dyn CredentialSource>)
                .collect(),
            host_directories: Self::default_host_directories(),
            ..Self::anonymous()
        }
    }
}

// === impl HostConfig ===

impl fmt::Debug for HostConfig {
    /// Headers are often keys: only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("HostConfig");
        shown.field("scheme", &self.scheme).field("headers", &names(&self.headers));
        shown.field("mirrors", &self.mirrors).finish()
    }
}

// === impl Mirror ===

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Mirror");
        shown.field("host", &self.host).field("scheme", &self.scheme);
        shown.field("headers", &names(&self.headers)).field("silence", &self.silence).finish()
    }
}

fn names(headers: &[(String, String)]) -> Vec<&str> {
    headers.iter().map(|(name, _)| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{Credentials, Secret, StaticCredentials};

    #[test]
    fn settings_can_be_logged_without_showing_secrets() {
        let mut config = RegistryConfig::anonymous();
        let headers = vec![("X-Key".to_owned(), "planted".to_owned())];
        let mirror = Mirror { host: "mirror.example".into(), headers: headers.clone(), ..Mirror::default() };
        let host = HostConfig { headers, mirrors: vec![mirror], ..HostConfig::default() };
        config.hosts.insert("example.com".into(), host);
        let password = Credentials::Password { username: "me".into(), password: Secret::new("planted") };
        let hosts = vec![("example.com".to_owned(), password)];
        config.credentials.push(Arc::new(StaticCredentials { hosts }));
        let shown = format!("{config:?}");
        assert!(
            shown.contains("mirror.example") && shown.contains("X-Key") && !shown.contains("planted"),
            "{shown}"
        );
    }
}
