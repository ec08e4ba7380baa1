//! A host that serves the registry protocol, and how it is reached.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use store::{Class, SourceErrorKind as Kind};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::warn;
use url::{Host, Url};

use crate::{
    auth::HostAuth,
    config::RegistryConfig,
    counters::{Count, HostCounters},
    error::Failure,
    health::Health,
    hosts::{Doubt, Headers, Upstream},
    transport::Transport,
};

/// One host of a registry: its URL, headers and authentication, shared by all blobs that are read from it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Tells one from another.
    pub(crate) id: EndpointId,
    /// The host as images name it, or the mirror's own name.
    pub(crate) name: String,
    /// The registry whose content this host has, as images name it.
    pub(crate) registry: String,
    /// What this was made from.
    pub(crate) upstream: Upstream,
    /// `scheme://host[:port]/v2/`
    pub(crate) base: Url,
    /// Sent with every request to this host, and to no other.
    pub(crate) headers: HeaderMap,
    pub(crate) auth: HostAuth,
    pub(crate) counters: Arc<HostCounters>,
    pub(crate) transport: Arc<Transport>,
    pub(crate) health: Arc<Health>,
    limits: Arc<Limits>,
    /// The server does not know suffix ranges; nothing is lost by asking for offsets.
    no_suffixes: AtomicBool,
    /// Until when the server wants fewer requests; only what nobody waits for obeys before it is refused.
    quiet_until: Mutex<Option<Instant>>,
    /// The same host with the other scheme, where it is not sure which one it speaks.
    twin: Option<Arc<Endpoint>>,
    /// How it speaks, as far as that is known: one of the constants below.
    speech: AtomicU8,
}

/// It is not known how the host speaks.
const UNKNOWN: u8 = 0;
/// It speaks as its address says.
const AS_SAID: u8 = 1;
/// It speaks as its twin's address says.
const AS_TWIN: u8 = 2;

/// Tells the endpoints of a client apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EndpointId(u64);

/// Connections that all hosts of one registry share.
#[derive(Debug)]
pub(crate) struct Limits {
    ahead: Arc<Semaphore>,
    background: Arc<Semaphore>,
}

/// What endpoints share with others.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) counters: Arc<HostCounters>,
    pub(crate) transport: Arc<Transport>,
    pub(crate) limits: Arc<Limits>,
}

/// The right to have a connection; demand needs none.
pub(crate) type Permit = Option<OwnedSemaphorePermit>;

// === impl Endpoint ===

impl Endpoint {
    /// An endpoint for a host of `registry`.
    pub(crate) fn new(registry: &str, upstream: &Upstream, shared: &Shared) -> Result<Self, Failure> {
        Self::with_health(registry, upstream, shared, &Arc::default())
    }

    fn with_health(
        registry: &str,
        upstream: &Upstream,
        shared: &Shared,
        health: &Arc<Health>,
    ) -> Result<Self, Failure> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let other = match upstream.doubt {
            Doubt::None => None,
            Doubt::TlsFirst => Some("http"),
            Doubt::PlainFirst => Some("https"),
        };
        let twin = other.and_then(|scheme| {
            let mut base = upstream.base.clone();
            base.set_scheme(scheme).ok()?;
            Some(Upstream { base, doubt: Doubt::None, ..upstream.clone() })
        });
        let twin = twin.map(|twin| Self::with_health(registry, &twin, shared, health)).transpose()?;
        let name = upstream.name(registry);
        Ok(Self {
            id: EndpointId(NEXT.fetch_add(1, Relaxed)),
            name: name.to_owned(),
            registry: registry.to_owned(),
            upstream: upstream.clone(),
            base: upstream.base.clone(),
            headers: headers(name, &upstream.headers)?,
            auth: HostAuth::default(),
            counters: shared.counters.clone(),
            transport: shared.transport.clone(),
            health: health.clone(),
            limits: shared.limits.clone(),
            no_suffixes: AtomicBool::new(false),
            quiet_until: Mutex::new(None),
            twin: twin.map(Arc::new),
            speech: AtomicU8::new(UNKNOWN),
        })
    }

    /// Whether this is a mirror and not the registry itself.
    pub(crate) fn is_mirror(&self) -> bool {
        !self.upstream.itself
    }

    /// The URL of `path` below the repository; both are safe to be in a URL. A mirror is told whose content is meant.
    pub(crate) fn url(&self, repository: &str, path: &str) -> Url {
        let mut url = self.base.clone();
        let api = self.base.path().trim_end_matches('/');
        url.set_path(&format!("{api}/{repository}/{path}"));
        if self.is_mirror() {
            url.query_pairs_mut().append_pair("ns", &self.registry);
        }
        url
    }

    /// This endpoint, or its twin if that is how the host speaks.
    pub(crate) fn current(self: &Arc<Self>) -> Arc<Self> {
        match &self.twin {
            Some(twin) if self.speech.load(Relaxed) == AS_TWIN => twin.clone(),
            _ => self.clone(),
        }
    }

    /// The endpoint to try after `failure`, if the host may speak the other scheme.
    pub(crate) fn twin_after(&self, failure: &Failure) -> Option<Arc<Self>> {
        let may = match self.base.scheme() {
            // Without a port in the address the other scheme is at another one.
            "https" => failure.may_be_plain(self.upstream.port().is_none()),
            _ => failure.may_be_tls(),
        };
        self.twin.clone().filter(|_| may && self.speech.load(Relaxed) == UNKNOWN)
    }

    /// The host answered when it was spoken to as `way`, which is this endpoint or its twin. One that is to be asked
    /// with TLS first and speaks it is never again asked in clear text.
    pub(crate) fn settle(&self, way: &Self) {
        let way = if way.id == self.id { AS_SAID } else { AS_TWIN };
        if way == AS_TWIN && self.is_tls_first() {
            // Another request may have been answered with TLS meanwhile; then there is nothing to note.
            let _ = self.speech.compare_exchange(UNKNOWN, way, Relaxed, Relaxed);
        } else {
            self.speech.store(way, Relaxed);
        }
    }

    /// The host failed: it may be another server than before, unless it has spoken TLS where that comes first.
    pub(crate) fn unsettle(&self) {
        if self.is_tls_first() {
            // The same.
            let _ = self.speech.compare_exchange(AS_TWIN, UNKNOWN, Relaxed, Relaxed);
        } else {
            self.speech.store(UNKNOWN, Relaxed);
        }
    }

    /// The host itself answered a request to `url`, whatever it said.
    pub(crate) fn answered(&self, url: &Url) {
        if self.is_tls_first() && url.scheme() == "https" {
            self.settle(self);
        }
    }

    fn is_tls_first(&self) -> bool {
        self.upstream.doubt == Doubt::TlsFirst
    }

    /// Takes note that the host sent something else than `what`. A mirror is left out for that, and reported.
    pub(crate) fn sent_wrong_bytes(&self, config: &RegistryConfig, what: &str) {
        self.counters.add(Count::WrongBytes);
        if self.is_mirror() && self.health.lied(config.liar_penalty) {
            let seconds = config.liar_penalty.as_secs();
            let (mirror, registry) = (&self.name, &self.registry);
            warn!(mirror, registry, what, seconds, "a mirror sent wrong bytes and is left out");
        }
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
            Class::ReadAhead | Class::Prefetch => &self.limits.ahead,
            Class::Background => &self.limits.background,
        };
        // The semaphores are never closed; were one, reading without a permit is the sane answer.
        permits.clone().acquire_owned().await.ok()
    }
}

// === impl Limits ===

impl Limits {
    pub(crate) fn new(config: &RegistryConfig) -> Arc<Self> {
        let permits = |count: usize| Arc::new(Semaphore::new(count.max(1)));
        let (ahead, background) = (permits(config.ahead_connections), permits(config.background_connections));
        Arc::new(Self { ahead, background })
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

fn headers(host: &str, configured: &Headers) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in &configured.0 {
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

    #[test]
    fn malformed_headers_are_refused_without_showing_their_value() {
        let settings = Headers(vec![("X-Key".into(), "planted\n".into())]);
        let error = headers("example.com", &settings).unwrap_err().error.to_string();
        assert!(error.contains("X-Key") && !error.contains("planted"), "{error}");
    }
}
