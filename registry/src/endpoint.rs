//! A host that serves the registry protocol, and how it is reached.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use store::{Class, SourceErrorKind as Kind};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use url::{Host, Url};

use crate::{
    auth::HostAuth,
    config::{HostConfig, RegistryConfig, Scheme},
    counters::HostCounters,
    error::Failure,
    reference::Reference,
};

/// One host: its URL, headers, authentication and connection permits, shared by all its blobs.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// The host as images name it.
    pub(crate) name: String,
    /// `scheme://host[:port]/v2/`
    pub(crate) base: Url,
    /// Sent with every request to this host, and to no other.
    pub(crate) headers: HeaderMap,
    pub(crate) auth: HostAuth,
    pub(crate) counters: HostCounters,
    /// The server does not know suffix ranges; nothing is lost by asking for offsets.
    no_suffixes: AtomicBool,
    /// Until when the server wants fewer requests; only what nobody waits for obeys before it is refused.
    quiet_until: Mutex<Option<Instant>>,
    ahead: Arc<Semaphore>,
    background: Arc<Semaphore>,
}

/// The right to have a connection; demand needs none.
pub(crate) type Permit = Option<OwnedSemaphorePermit>;

// === impl Endpoint ===

impl Endpoint {
    pub(crate) fn new(reference: &Reference, config: &RegistryConfig) -> Result<Self, Failure> {
        let host = reference.api_host();
        let default = HostConfig::default();
        let settings = config.hosts.get(reference.host()).unwrap_or(&default);
        let scheme = settings.scheme.map_or_else(|| default_scheme(host), Scheme::as_str);
        let base = Url::parse(&format!("{scheme}://{host}/v2/"))
            .map_err(|error| Failure::fatal(Kind::Protocol, format!("{host} is not a host: {error}")))?;
        Ok(Self {
            name: reference.host().to_owned(),
            base,
            headers: headers(reference.host(), settings)?,
            auth: HostAuth::default(),
            counters: HostCounters::default(),
            no_suffixes: AtomicBool::new(false),
            quiet_until: Mutex::new(None),
            ahead: Arc::new(Semaphore::new(config.ahead_connections.max(1))),
            background: Arc::new(Semaphore::new(config.background_connections.max(1))),
        })
    }

    /// The URL of `path` below `/v2/<repository>/`; both are safe to be in a URL.
    pub(crate) fn url(&self, repository: &str, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{repository}/{path}"));
        url
    }

    /// Whether suffix ranges are worth a try.
    pub(crate) fn takes_suffixes(&self) -> bool {
        !self.no_suffixes.load(Relaxed)
    }

    /// Suffix ranges were refused where offsets were taken.
    pub(crate) fn set_refuses_suffixes(&self) {
        self.no_suffixes.store(true, Relaxed);
    }

    /// The server asked for fewer requests until `then`.
    pub(crate) fn ask_for_quiet(&self, then: Instant) {
        let mut until = self.quiet_until.lock();
        *until = Some(until.map_or(then, |until| until.max(then)));
    }

    /// Waits, unless for demand, until the server no longer wants quiet: more refusals of requests that can
    /// wait would use up the allowance that demand needs.
    pub(crate) async fn quiet_over(&self, class: Class) {
        let until = *self.quiet_until.lock();
        if let Some(until) = until.filter(|_| class != Class::Demand) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Waits until a read of this class may have a connection. Demand never waits.
    pub(crate) async fn permit(&self, class: Class) -> Permit {
        let permits = match class {
            Class::Demand => return None,
            Class::ReadAhead | Class::Prefetch => &self.ahead,
            Class::Background => &self.background,
        };
        // The semaphores are never closed; were one, reading without a permit is the sane answer.
        permits.clone().acquire_owned().await.ok()
    }
}

/// Clear text is for registries on this machine; port 443 is TLS by convention (containerd
/// `DefaultHosts`).
fn default_scheme(host: &str) -> &'static str {
    match Url::parse(&format!("http://{host}/")) {
        Ok(url) if is_loopback(&url) && url.port() != Some(443) => "http",
        _ => "https",
    }
}

/// Whether the URL's host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

fn headers(host: &str, settings: &HostConfig) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let invalid = || {
            Failure::fatal(
                Kind::Protocol,
                format!("the header {name:?} configured for {host} is not a valid one"),
            )
        };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| invalid())?;
        value.set_sensitive(true);
        headers.append(key, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(reference: &str, config: &RegistryConfig) -> String {
        Endpoint::new(&reference.parse().unwrap(), config).unwrap().base.to_string()
    }

    #[test]
    fn loopback_and_insecure_hosts_are_reached_in_clear_text_and_others_with_tls() {
        let config = RegistryConfig::anonymous().with_insecure_host("plain.example.com:80");
        for (reference, expected) in [
            ("localhost:5000/a", "http://localhost:5000/v2/"),
            ("127.0.0.2:5000/a", "http://127.0.0.2:5000/v2/"),
            ("[::1]:5000/a", "http://[::1]:5000/v2/"),
            ("localhost:443/a", "https://localhost/v2/"),
            ("plain.example.com:80/a", "http://plain.example.com/v2/"),
            ("plain.example.com/a", "https://plain.example.com/v2/"),
            ("10.0.0.1:5000/a", "https://10.0.0.1:5000/v2/"),
            ("a", "https://registry-1.docker.io/v2/"),
        ] {
            assert_eq!(base(reference, &config), expected);
        }
    }

    #[test]
    fn a_loopback_host_can_be_configured_to_use_tls() {
        let mut config = RegistryConfig::anonymous();
        config.hosts.insert(
            "localhost:5000".into(),
            HostConfig { scheme: Some(Scheme::Https), ..HostConfig::default() },
        );
        assert_eq!(base("localhost:5000/a", &config), "https://localhost:5000/v2/");
    }

    #[test]
    fn malformed_headers_are_refused_without_showing_their_value() {
        let settings =
            HostConfig { headers: vec![("X-Key".into(), "planted\n".into())], ..HostConfig::default() };
        let error = headers("example.com", &settings).unwrap_err().error.to_string();
        assert!(error.contains("X-Key") && !error.contains("planted"), "{error}");
    }
}
