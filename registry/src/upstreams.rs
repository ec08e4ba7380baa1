//! The endpoints of every registry that was asked for, kept up to date with the files that describe them.
//!
//! An endpoint lives as long as what is said of it stays the same: tokens, connections and experience with other hosts
//! survive a change of one. When files become unusable while the client lives, what they said before holds on.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use store::SourceErrorKind as Kind;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    config::RegistryConfig,
    counters::{HostCounters, HostStats},
    endpoint::{Endpoint, Limits, Shared},
    error::Failure,
    hosts::{Capabilities, Connection, Described, describe},
    reference::Reference,
    transport::Transport,
};

/// All registries.
#[derive(Debug)]
pub(crate) struct Upstreams {
    /// For hosts of which nothing special is said.
    usual: Arc<Transport>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    registries: HashMap<String, Registry>,
    transports: HashMap<Connection, Weak<Transport>>,
    counters: HashMap<String, Arc<HostCounters>>,
}

/// One registry.
#[derive(Debug)]
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
    pub(crate) fn new(config: &RegistryConfig) -> Result<Self, Failure> {
        let usual = Arc::new(Transport::new(config, &Connection::default())?);
        Ok(Self { usual, state: Mutex::default() })
    }

    /// The hosts that may be asked for what is needed of the reference's registry, in the order of configuration.
    pub(crate) fn of(
        &self,
        reference: &Reference,
        need: Need,
        config: &RegistryConfig,
    ) -> Result<Vec<Arc<Endpoint>>, Failure> {
        let mut endpoints = self.all(reference, config)?;
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
    pub(crate) fn all(
        &self,
        reference: &Reference,
        config: &RegistryConfig,
    ) -> Result<Vec<Arc<Endpoint>>, Failure> {
        let (name, now) = (reference.host(), Instant::now());
        let mut state = self.state.lock();
        if let Some(known) = state.registries.get(name)
            && now.duration_since(known.checked) < config.hosts_recheck
        {
            return Ok(known.endpoints.clone());
        }
        let known = state.registries.remove(name);
        let registry = match describe(name, reference.api_host(), config) {
            Ok(described) => self.renew(&mut state, name, described, known, config)?,
            Err(problem) => match known {
                Some(known) => Registry { checked: now, ..known }.with_problems(name, vec![problem]),
                None => return Err(Failure::fatal(Kind::Protocol, problem)),
            },
        };
        let endpoints = registry.endpoints.clone();
        state.registries.insert(name.to_owned(), registry);
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
        state: &mut State,
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
            let transport = self.transport(state, &upstream.connection, config);
            let made = transport.and_then(|transport| {
                let counters = state.counters.entry(upstream.name(name).to_owned()).or_default().clone();
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
    fn transport(
        &self,
        state: &mut State,
        connection: &Connection,
        config: &RegistryConfig,
    ) -> Result<Arc<Transport>, Failure> {
        if *connection == Connection::default() {
            return Ok(self.usual.clone());
        }
        if let Some(known) = state.transports.get(connection).and_then(Weak::upgrade) {
            return Ok(known);
        }
        state.transports.retain(|_, transport| transport.strong_count() > 0);
        let transport = Arc::new(Transport::new(config, connection)?);
        state.transports.insert(connection.clone(), Arc::downgrade(&transport));
        Ok(transport)
    }
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
