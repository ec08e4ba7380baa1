//! What the daemon counts, for Prometheus.
//!
//! [`names`] is the one list of metrics. What happens in this crate (calls of containerd, Prepares) is counted here as
//! it happens; what the other crates count is read from them at each scrape through [`Source`]. Labels have few values:
//! never a digest, an image or a path. A source may come later than the calls it goes with ([`Metrics::add_source`]).

mod fuse;
pub mod names;
mod reference;
mod rpc;
mod scrape;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use crate::lazy::FallBackReason;

pub use reference::reference;
pub use rpc::CountRpcs;
use scrape::Sources;
pub use scrape::{Samples, Source};

/// All counters of the daemon.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    rpcs: Family<[(&'static str, String); 2], Counter>,
    rpc_seconds: Family<[(&'static str, String); 1], Histogram>,
    prepares: Family<[(&'static str, String); 2], Counter>,
    open_seconds: Histogram,
    sources: Sources,
}

/// What became of a Prepare that could have been lazy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// The layer is served lazily.
    Lazy,
    /// The layer is downloaded by containerd.
    FellBack(FallBackReason),
}

// === impl Metrics ===

impl Metrics {
    /// From now on `source` is asked at each scrape.
    pub fn add_source(&self, source: Arc<impl Source>) {
        self.sources.write().push(source);
    }

    fn new() -> Self {
        let sources = Sources::default();
        let mut registry = Registry::default();
        let rpcs = Family::default();
        let rpc_seconds = Family::new_with_constructor(rpc_histogram as fn() -> Histogram);
        let prepares = Family::default();
        let open_seconds = Histogram::new(OPEN_BUCKETS);
        register(&mut registry, &names::RPC_REQUESTS, rpcs.clone());
        register(&mut registry, &names::RPC_DURATION, rpc_seconds.clone());
        register(&mut registry, &names::PREPARES, prepares.clone());
        register(&mut registry, &names::LAYER_OPEN_DURATION, open_seconds.clone());
        registry.register_collector(Box::new(scrape::Scrape::new(Arc::clone(&sources))));
        Self { registry: Arc::new(registry), rpcs, rpc_seconds, prepares, open_seconds, sources }
    }

    /// A call of containerd ended.
    pub fn rpc(&self, method: &str, code: &str, took: Duration) {
        self.rpcs.get_or_create(&[("method", method.to_owned()), ("code", code.to_owned())]).inc();
        self.rpc_seconds.get_or_create(&[("method", method.to_owned())]).observe(took.as_secs_f64());
    }

    /// A Prepare that names a target ended.
    pub fn prepared(&self, prepared: Prepared) {
        let (outcome, reason) = match prepared {
            Prepared::Lazy => ("lazy", "none"),
            Prepared::FellBack(reason) => ("fall-back", reason.as_str()),
        };
        self.prepares.get_or_create(&[("outcome", outcome.to_owned()), ("reason", reason.to_owned())]).inc();
    }

    /// A layer that was not on disk was opened.
    pub fn opened(&self, took: Duration) {
        self.open_seconds.observe(took.as_secs_f64());
    }

    /// Everything in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut page = String::new();
        // A String takes any text, and the collectors only fail if it does not.
        let _ = text::encode(&mut page, &self.registry);
        page
    }
}

impl Default for Metrics {
    /// Counters at zero, without sources.
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Most calls touch a local file; Prepare may take its whole deadline.
const RPC_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 30.0];
/// One request to a registry and the building of an index.
const OPEN_BUCKETS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

fn rpc_histogram() -> Histogram {
    Histogram::new(RPC_BUCKETS)
}

fn register(registry: &mut Registry, of: &names::Metric, metric: impl prometheus_client::registry::Metric) {
    registry.register(of.name, of.help, metric);
}
