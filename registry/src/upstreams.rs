//! The endpoints of every registry that was asked for, kept up to date with the files that describe them.
//!
//! An endpoint lives as long as what is said of it stays the same: tokens, connections and experience with other hosts
//! survive a change of one. When files become unusable while the client lives, what they said before holds on. They are
//! read on threads that may wait for a disk, by one reader of a registry while the others go on with what is known, unless
//! that is old.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use store::SourceErrorKind as Kind;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    aside::Flight,
    config::RegistryConfig,
    counters::{HostCounters, HostStats},
    endpoint::{Endpoint, Limits, Shared},
    error::Failure,
    hosts::{Capabilities, Connection, Described, describe},
    reference::Reference,
    transport::Transport,
};

/// What was looked at longer ago than so many rechecks is old: hosts may have been replaced since, and all readers wait
/// for what the files say now.
const FRESH: u32 = 3;

/// All registries.
#[derive(Debug)]
pub(crate) struct Upstreams {
    /// For hosts of which nothing special is said.
    usual: Arc<Transport>,
    /// Never held while a file is read.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    registries: HashMap<String, Registry>,
    transports: HashMap<Connection, Weak<Transport>>,
    counters: HashMap<String, Arc<HostCounters>>,
    /// How the files of each registry are looked at.
    looking: HashMap<String, Arc<Flight<Looked>>>,
}

/// All hosts of a registry, or why it has none.
type Looked = Result<Vec<Arc<Endpoint>>, Arc<Failure>>;

/// One registry.
#[derive(Debug, Clone)]
struct Registry {
    checked: Instant,
    endpoints: Vec<Arc<Endpoint>>,
    limits: Arc<Limits>,
    problems: Vec<String>,
}

/// What a host is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Content by its digest.
    Pull,
    /// The meaning of a tag.
    Resolve,
    /// Uploads.
    Push,
    /// What refers to an image.
    Referrers,
}

/// The hosts that serve a registry's content, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryHosts {
    /// The registry, as images name it.
    pub registry: String,
    /// In the order in which they are asked while all is well.
    pub hosts: Vec<HostStanding>,
    /// What is configured and cannot be used.
    pub problems: Vec<String>,
}

/// How one host does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostStanding {
    /// The address under which repositories are found.
    pub url: String,
    /// Whether it is asked in its turn.
    pub standing: Standing,
}

/// Whether a host is asked in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    InTurn,
    /// It failed lately, and is asked last.
    Last,
    /// It sent wrong bytes, and is not asked.
    LeftOut,
}

// === impl Upstreams ===

impl Upstreams {
    pub(crate) fn new(config: &RegistryConfig) -> Result<Arc<Self>, Failure> {
        let usual = Arc::new(Transport::new(config, &Connection::default())?);
        Ok(Arc::new(Self { usual, state: Mutex::default() }))
    }

    /// The hosts that may be asked for what is needed of the reference's registry, in the order of configuration.
    pub(crate) async fn of(
        self: &Arc<Self>,
        reference: &Reference,
        need: Need,
        config: &RegistryConfig,
    ) -> Result<Vec<Arc<Endpoint>>, Failure> {
        let mut endpoints = self.all(reference, config).await?;
        endpoints.retain(|endpoint| need.is_met(endpoint.upstream.capabilities));
        if endpoints.is_empty() {
            let message = format!(
                "no host of {} may be asked for this; its hosts.toml gives the capability to none",
                reference.host()
            );
            return Err(Failure::fatal(Kind::NotFound, message));
        }
        Ok(endpoints)
    }

    /// All hosts of the reference's registry, whatever they may be asked for.
    async fn all(
        self: &Arc<Self>,
        reference: &Reference,
        config: &RegistryConfig,
    ) -> Result<Vec<Arc<Endpoint>>, Failure> {
        let (name, now) = (reference.host(), Instant::now());
        let looking = {
            let mut state = self.state.lock();
            let State { registries, looking, .. } = &mut *state;
            let known =
                registries.get(name).map(|known| (now.duration_since(known.checked), &known.endpoints));
            if let Some((age, endpoints)) = known
                && age < config.hosts_recheck
            {
                return Ok(endpoints.clone());
            }
            let looking = looking.entry(name.to_owned()).or_default();
            if let Some((age, endpoints)) = known
                && age < config.hosts_recheck.saturating_mul(FRESH)
                && looking.is_busy()
            {
                return Ok(endpoints.clone());
            }
            looking.clone()
        };
        let (this, of, config) = (self.clone(), reference.clone(), config.clone());
        let looked = looking.ask(move || this.look(&of, &config).map_err(Arc::new)).await;
        looked.map(|looked| looked.map_err(Failure::of_many)).unwrap_or_else(|error| {
            // Another reader may have come to know them meanwhile.
            self.known(name).ok_or_else(|| unread(name, &error))
        })
    }

    /// The registry's hosts as they were described last.
    fn known(&self, name: &str) -> Option<Vec<Arc<Endpoint>>> {
        self.state.lock().registries.get(name).map(|known| known.endpoints.clone())
    }

    /// Looks at what files say of the reference's registry, and takes note of it. One does so for a registry at a time.
    fn look(&self, reference: &Reference, config: &RegistryConfig) -> Result<Vec<Arc<Endpoint>>, Failure> {
        let name = reference.host();
        let known = self.state.lock().registries.get(name).cloned();
        let registry = match describe(name, reference.api_host(), config) {
            Ok(described) => self.renew(name, described, known, config)?,
            Err(problem) => match known {
                Some(known) => {
                    Registry { checked: Instant::now(), ..known }.with_problems(name, vec![problem])
                }
                None => return Err(Failure::fatal(Kind::Protocol, problem)),
            },
        };
        let endpoints = registry.endpoints.clone();
        self.state.lock().registries.insert(name.to_owned(), registry);
        Ok(endpoints)
    }

    /// What was asked of each host so far, in the order of their names.
    pub(crate) fn stats(&self) -> Vec<HostStats> {
        let state = self.state.lock();
        let mut stats: Vec<_> =
            state.counters.iter().map(|(host, counters)| counters.snapshot(host)).collect();
        stats.sort_by(|a, b| a.host.cmp(&b.host));
        stats
    }

    /// The hosts of every registry that was asked for so far, in the order of their names.
    pub(crate) fn hosts(&self) -> Vec<RegistryHosts> {
        let state = self.state.lock();
        let hosts = state.registries.iter().map(|(name, known)| {
            let serving =
                known.endpoints.iter().filter(|endpoint| Need::Pull.is_met(endpoint.upstream.capabilities));
            let hosts = serving.map(|endpoint| HostStanding {
                url: endpoint.current().base.to_string(),
                standing: match &endpoint.health {
                    health if endpoint.is_mirror() && health.is_left_out() => Standing::LeftOut,
                    health if health.is_failing() => Standing::Last,
                    _ => Standing::InTurn,
                },
            });
            RegistryHosts { registry: name.clone(), hosts: hosts.collect(), problems: known.problems.clone() }
        });
        let mut hosts: Vec<_> = hosts.collect();
        hosts.sort_by(|a, b| a.registry.cmp(&b.registry));
        hosts
    }

    /// The registry as it is described now. A host that cannot be used is left out if there are others.
    fn renew(
        &self,
        name: &str,
        described: Described,
        known: Option<Registry>,
        config: &RegistryConfig,
    ) -> Result<Registry, Failure> {
        let Described { upstreams, mut problems } = described;
        let limits = known.as_ref().map_or_else(|| Limits::new(config), |known| known.limits.clone());
        let mut old = known.as_ref().map(|known| known.endpoints.clone()).unwrap_or_default();
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::new();
        let mut failure = None;
        for upstream in &upstreams {
            if let Some(same) = old.iter().position(|endpoint| endpoint.upstream == *upstream) {
                endpoints.push(old.swap_remove(same));
                continue;
            }
            let transport = self.transport(&upstream.connection, config);
            let made = transport.and_then(|transport| {
                let counted_as = upstream.name(name).to_owned();
                let counters = self.state.lock().counters.entry(counted_as).or_default().clone();
                Endpoint::new(name, upstream, &Shared { counters, transport, limits: limits.clone() })
            });
            match made {
                Ok(endpoint) => endpoints.push(Arc::new(endpoint)),
                Err(error) => {
                    problems.push(format!("{} is left out: {}", upstream.base, error.error.message));
                    failure = Some(error);
                }
            }
        }
        let checked = Instant::now();
        let before = match known {
            Some(known) if endpoints.is_empty() && !known.endpoints.is_empty() => {
                return Ok(Registry { checked, ..known }.with_problems(name, problems));
            }
            Some(known) => {
                if known.endpoints.iter().map(|e| e.id).ne(endpoints.iter().map(|e| e.id)) {
                    let hosts: Vec<_> = endpoints.iter().map(|endpoint| endpoint.base.as_str()).collect();
                    info!(registry = name, ?hosts, "the registry's hosts have changed");
                }
                known.problems
            }
            None if endpoints.is_empty() => {
                let none = || Failure::fatal(Kind::Protocol, format!("{name} has no host that can be asked"));
                return Err(failure.unwrap_or_else(none));
            }
            None => Vec::new(),
        };
        Ok(Registry { checked, endpoints, limits, problems: before }.with_problems(name, problems))
    }

    /// Connections of this kind, shared with all hosts that want the same.
    fn transport(&self, connection: &Connection, config: &RegistryConfig) -> Result<Arc<Transport>, Failure> {
        if *connection == Connection::default() {
            return Ok(self.usual.clone());
        }
        let known = |state: &State| state.transports.get(connection).and_then(Weak::upgrade);
        if let Some(known) = known(&self.state.lock()) {
            return Ok(known);
        }
        // This reads certificates.
        let transport = Arc::new(Transport::new(config, connection)?);
        let mut state = self.state.lock();
        if let Some(known) = known(&state) {
            return Ok(known);
        }
        state.transports.retain(|_, transport| transport.strong_count() > 0);
        state.transports.insert(connection.clone(), Arc::downgrade(&transport));
        Ok(transport)
    }
}

fn unread(name: &str, error: &io::Error) -> Failure {
    let kind = if error.kind() == io::ErrorKind::TimedOut { Kind::TimedOut } else { Kind::Unavailable };
    Failure::passing(kind, format!("what is configured for {name} cannot be read: {error}"))
}

// === impl Registry ===

impl Registry {
    /// Tells of problems that are new.
    fn with_problems(mut self, name: &str, problems: Vec<String>) -> Self {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            warn!(registry = name, problem, "what is configured for a registry cannot be used");
        }
        self.problems = problems;
        self
    }
}

// === impl Need ===

impl Need {
    fn is_met(self, capabilities: Capabilities) -> bool {
        match self {
            Self::Pull => capabilities.pull,
            Self::Resolve => capabilities.pull && capabilities.resolve,
            Self::Push => capabilities.push,
            Self::Referrers => capabilities.referrers,
        }
    }
}

#[cfg(test)]
mod tests;
