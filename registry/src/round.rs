//! One after the other, the hosts of a registry are asked until one gives what is wanted.
//!
//! Mirrors come first, in the order of configuration; hosts that do not have this content, and hosts that failed lately,
//! come last. No host but the last may take long to begin its answer. A host that is not sure to speak TLS, or not to,
//! is asked in the other way too. The caller makes the requests and tells how they ended.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use http::StatusCode;
use parking_lot::Mutex;
use store::SourceErrorKind as Kind;
use tokio::time::Instant;

use crate::{
    config::RegistryConfig,
    endpoint::{Endpoint, EndpointId},
    error::{Failure, Retry},
};

/// For how long a mirror is taken not to have something that it said it has not.
const LACKING: Duration = Duration::from_secs(60);
/// This much of the failures of other hosts is told with the one that counts.
const MAX_NOTE: usize = 200;
/// Failures of other hosts that are told.
const MAX_NOTES: usize = 3;

/// Hosts that do not have some content, or cannot serve it as it is needed.
#[derive(Debug, Default)]
pub(crate) struct Lacking(Mutex<Vec<(EndpointId, Instant)>>);

/// One round over the hosts.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    waiting: VecDeque<Arc<Endpoint>>,
    /// The host that is being asked, and the way in which it is spoken to.
    asked: Option<(Arc<Endpoint>, Arc<Endpoint>)>,
    /// The other way to speak to it, which comes next.
    twin: Option<Arc<Endpoint>>,
    failures: Vec<(Arc<Endpoint>, Failure)>,
    lacking: Option<&'a Lacking>,
    config: &'a RegistryConfig,
}

// === impl Lacking ===

impl Lacking {
    fn note(&self, id: EndpointId) {
        let mut known = self.0.lock();
        known.retain(|(other, _)| *other != id);
        known.push((id, Instant::now() + LACKING));
    }

    fn has(&self, id: EndpointId) -> bool {
        let now = Instant::now();
        self.0.lock().iter().any(|(other, until)| *other == id && now < *until)
    }
}

// === impl Round ===

impl<'a> Round<'a> {
    /// A round over `endpoints`, which are not empty. Where only a mirror that lied is left, it is asked: what it sends
    /// is checked.
    pub(crate) fn new(
        mut endpoints: Vec<Arc<Endpoint>>,
        lacking: Option<&'a Lacking>,
        config: &'a RegistryConfig,
    ) -> Self {
        let left_out = |endpoint: &Arc<Endpoint>| endpoint.is_mirror() && endpoint.health.is_left_out();
        if !endpoints.iter().all(left_out) {
            endpoints.retain(|endpoint| !left_out(endpoint));
        }
        endpoints.sort_by_key(|endpoint| match endpoint {
            endpoint if endpoint.health.is_failing() => 2,
            endpoint if lacking.is_some_and(|lacking| lacking.has(endpoint.id)) => 1,
            _ => 0,
        });
        Self { waiting: endpoints.into(), asked: None, twin: None, failures: Vec::new(), lacking, config }
    }

    /// The host that would be asked first, without asking it.
    pub(crate) fn first(&self) -> Option<Arc<Endpoint>> {
        self.waiting.front().map(|host| host.current())
    }

    /// The next host to ask; `None` if all were asked.
    pub(crate) fn next(&mut self) -> Option<Arc<Endpoint>> {
        if let (Some(twin), Some((host, way))) = (self.twin.take(), &mut self.asked) {
            *way = twin;
            tracing::debug!(host = host.name, scheme = way.base.scheme(), "tries the other scheme");
            return Some(way.clone());
        }
        let host = self.waiting.pop_front()?;
        host.health.asked(self.patience(&host));
        let way = host.current();
        self.asked = Some((host, way.clone()));
        Some(way)
    }

    /// Whether the host that is being asked is the last one.
    pub(crate) fn is_last(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the host's answer must have begun.
    pub(crate) fn answer_by(&self, deadline: Instant) -> Instant {
        let Some((host, _)) = self.asked.as_ref().filter(|_| !self.waiting.is_empty()) else {
            return deadline;
        };
        let now = Instant::now();
        // Whatever the time is, the other hosts get a part of it.
        now + self.patience(host).min(deadline.saturating_duration_since(now) / 2)
    }

    /// How long a host may be silent while there are others.
    fn patience(&self, host: &Endpoint) -> Duration {
        host.upstream.connection.silence.unwrap_or(self.config.host_patience)
    }

    /// The host that was asked last, as it was spoken to.
    pub(crate) fn asked(&self) -> Option<Arc<Endpoint>> {
        self.asked.as_ref().map(|(_, way)| way.clone())
    }

    /// What came of asking: what was wanted, or `None` if the next host is to be asked.
    pub(crate) fn outcome<T>(&mut self, outcome: Result<T, Failure>) -> Option<T> {
        match outcome {
            Ok(wanted) => {
                self.worked();
                Some(wanted)
            }
            Err(failure) => {
                self.failed(failure);
                None
            }
        }
    }

    /// The host gave what was wanted.
    fn worked(&mut self) {
        if let Some((host, way)) = &self.asked {
            host.settle(way);
            host.health.worked();
        }
    }

    /// The host did not give what was wanted.
    fn failed(&mut self, failure: Failure) {
        let Some((host, way)) = &self.asked else { return };
        let other_way = host.id != way.id;
        self.twin = if other_way { None } else { host.twin_after(&failure) };
        host.unsettle();
        if failure.blames_host() {
            host.health.failed(self.config.host_penalty);
        } else if host.is_mirror()
            && let Some(lacking) = self.lacking
        {
            lacking.note(host.id);
        }
        if !self.waiting.is_empty() {
            tracing::debug!(host = host.name, error = %failure.error, "asks the next host");
        }
        let before = self.failures.iter_mut().find(|(other, _)| other.id == host.id);
        match before {
            // Of the two ways, the one that was understood tells more. 400 is what servers with TLS say without it.
            Some((_, before)) => {
                let understood = failure.status.is_some_and(|status| status != StatusCode::BAD_REQUEST);
                if understood || before.retry == Retry::NotTls {
                    *before = failure;
                }
            }
            None => self.failures.push((host.clone(), failure)),
        }
    }

    /// Why none gave it: what the registry itself said, if it was asked, with a word on the others.
    pub(crate) fn into_failure(mut self) -> Failure {
        let itself = self.failures.iter().position(|(host, _)| !host.is_mirror());
        let index = itself.unwrap_or(self.failures.len().saturating_sub(1));
        if self.failures.is_empty() {
            return Failure::fatal(Kind::NotFound, "there is no host to ask");
        }
        let (_, mut failure) = self.failures.remove(index);
        for (host, other) in self.failures.iter().take(MAX_NOTES) {
            let message: String = other.error.message.chars().take(MAX_NOTE).collect();
            failure.error.message.push_str(&format!("; the mirror {} failed too: {message}", host.name));
        }
        failure
    }
}

#[cfg(test)]
mod tests;
