//! What layers have done, for the admin socket and for metrics.

use parking_lot::Mutex;
use registry::{Access, HostStats, LoginStats, SourceKind, Standing};
use store::{LayerKey, LayerStats};

use super::RemoteLayers;
use crate::{
    admin::{FilesStatus, HostStatus, HostsStatus, ImageStatus, LayerStatus, PlaceStatus, RegistryStatus},
    metrics::{Samples, Source, names},
};

/// Counters of layers that were deleted, so that sums never fall.
#[derive(Debug, Default)]
pub(super) struct Deleted(Mutex<Sums>);

/// Counters over layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    hits: u64,
    misses: u64,
    demand_bytes: u64,
    planned_bytes: u64,
    background_bytes: u64,
    requests: u64,
    planned_requests: u64,
    background_requests: u64,
    verify_failures: u64,
    damaged_chunks: u64,
}

// === impl Deleted ===

impl Deleted {
    /// A layer goes.
    pub(super) fn count(&self, stats: &LayerStats) {
        self.0.lock().add(stats);
    }
}

// === impl Sums ===

impl Sums {
    fn add(&mut self, stats: &LayerStats) {
        self.hits += stats.hits;
        self.misses += stats.misses;
        self.demand_bytes += stats.demand_bytes_fetched;
        self.planned_bytes += stats.planned_bytes_fetched;
        self.background_bytes += stats.background_bytes_fetched;
        self.requests += stats.requests;
        self.planned_requests += stats.planned_requests;
        self.background_requests += stats.background_requests;
        self.verify_failures += stats.verify_failures;
        self.damaged_chunks += stats.damaged_chunks;
    }
}

// === impl RemoteLayers ===

impl RemoteLayers {
    /// All layers, by key.
    pub fn layer_statuses(&self) -> Vec<LayerStatus> {
        let mut layers: Vec<_> =
            self.opener.store.layers().iter().map(|layer| self.layer_status(layer)).collect();
        layers.sort_by(|a, b| a.key.cmp(&b.key));
        layers
    }

    /// What became of images, the latest first.
    pub fn image_statuses(&self) -> Vec<ImageStatus> {
        self.journal.images()
    }

    /// What was asked of registries, by host.
    pub fn registry_statuses(&self) -> Vec<RegistryStatus> {
        let status = |host: HostStats| RegistryStatus {
            host: host.host,
            requests: host.requests,
            bytes_received: host.bytes_received,
            retries: host.retries,
        };
        self.opener.registry.stats().into_iter().map(status).collect()
    }

    /// The hosts of registries, and how each does.
    pub fn hosts_statuses(&self) -> Vec<HostsStatus> {
        let status = |host: registry::HostStanding| HostStatus {
            url: host.url,
            passed_over: match host.standing {
                Standing::InTurn => None,
                Standing::Last => Some("it failed lately and is asked last".to_owned()),
                Standing::LeftOut => Some("it sent wrong bytes and is not asked".to_owned()),
            },
        };
        let of = |known: registry::RegistryHosts| HostsStatus {
            registry: known.registry,
            hosts: known.hosts.into_iter().map(status).collect(),
            problems: known.problems,
        };
        self.opener.registry.hosts().into_iter().map(of).collect()
    }

    fn layer_status(&self, layer: &store::Layer) -> LayerStatus {
        let (key, stats) = (layer.key(), layer.stats());
        let references = self.opener.sources(key).references();
        let complete = stats.chunks_present == stats.chunks_total;
        let background = match (complete, self.fetching.background) {
            (true, _) => "complete",
            (false, true) => "filling",
            (false, false) => "off",
        };
        LayerStatus {
            key: key.to_string(),
            blob: key.blob.to_string(),
            toc: key.toc.to_string(),
            places: references.iter().filter_map(|reference| self.place_status(reference, key)).collect(),
            references,
            slot: self.attached.slot(&key).map(fusefs::Slot::get),
            files: FilesStatus::new(
                (stats.bytes_present, stats.bytes_total),
                (stats.chunks_present, stats.chunks_total),
            ),
            hits: stats.hits,
            misses: stats.misses,
            demand_bytes_fetched: stats.demand_bytes_fetched,
            planned_bytes_fetched: stats.planned_bytes_fetched,
            background_bytes_fetched: stats.background_bytes_fetched,
            requests: stats.requests,
            verify_failures: stats.verify_failures,
            background: background.to_owned(),
            last_error: stats.last_error,
        }
    }
}

impl RemoteLayers {
    /// How the layer was read last through one image.
    fn place_status(&self, spelled: &str, key: LayerKey) -> Option<PlaceStatus> {
        let report = self.opener.registry.blob_report(&spelled.parse().ok()?, key.blob)?;
        let (credentials, credential_source) = match report.access {
            Access::Open => ("none asked for".to_owned(), None),
            Access::Anonymous => ("anonymous".to_owned(), None),
            Access::Refused => ("refused".to_owned(), None),
            Access::Login { source, credentials } => (credentials, Some(source)),
        };
        Some(PlaceStatus {
            reference: spelled.to_owned(),
            host: report.host,
            redirect: report.redirect,
            ranges: report.ranges,
            last_answer: report.status,
            credentials,
            credential_source,
        })
    }
}

impl Source for RemoteLayers {
    fn sample(&self, samples: &mut Samples) {
        let layers = self.opener.store.layers();
        let stats: Vec<_> = layers.iter().map(|layer| layer.stats()).collect();
        let mut sums = *self.removal.deleted.0.lock();
        stats.iter().for_each(|stats| sums.add(stats));
        let complete = stats.iter().filter(|stats| stats.chunks_present == stats.chunks_total).count() as u64;
        let (present, total) = stats.iter().fold((0, 0), |(present, total), stats| {
            (present + stats.bytes_present, total + stats.bytes_total)
        });
        let pair = |names: [&str; 2], values: [u64; 2]| names.map(str::to_owned).into_iter().zip(values);
        let classes = ["demand", "planned", "background"].map(str::to_owned);
        let partial = stats.len() as u64 - complete;
        samples.labelled(&names::LAYERS, pair(["complete", "partial"], [complete, partial]));
        samples.labelled(&names::LAYER_BYTES, pair(["present", "missing"], [present, total - present]));
        samples.value(&names::READ_HITS, sums.hits);
        samples.value(&names::READ_MISSES, sums.misses);
        let fetched = [sums.demand_bytes, sums.planned_bytes, sums.background_bytes];
        samples.labelled(&names::FETCHED_BYTES, classes.clone().into_iter().zip(fetched));
        let demand_requests = sums.requests - sums.planned_requests - sums.background_requests;
        let asked = [demand_requests, sums.planned_requests, sums.background_requests];
        samples.labelled(&names::FETCH_REQUESTS, classes.into_iter().zip(asked));
        samples.value(&names::RECORDED_BYTES, layers.iter().map(|layer| layer.recorded_bytes()).sum());
        samples.value(&names::VERIFY_FAILURES, sums.verify_failures);
        let cache = self.cache_status();
        samples.value(&names::CACHE_BYTES, cache.bytes);
        samples.value(&names::CACHE_QUOTA, cache.quota_bytes);
        samples.value(&names::CACHE_KEEPING, cache.keeping.into());
        samples.value(&names::UNCACHED_CHUNKS, cache.uncached_chunks);
        samples.value(&names::EVICTED_BYTES, cache.evicted_bytes);
        samples.value(&names::GIVEN_BACK_BYTES, cache.given_back_bytes);
        samples.value(&names::DAMAGED_CHUNKS, sums.damaged_chunks);
        samples.value(&names::MEMORY_IN_FLIGHT, self.opener.store.memory_in_use());
        let lookups = self.lookups.counts().map(|(outcome, count)| (outcome.to_owned(), count));
        samples.labelled(&names::PROFILE_LOOKUPS, lookups);
        let (layers, bytes) = self.opener.early.size();
        samples.value(&names::EARLY_LAYERS, layers);
        samples.value(&names::EARLY_BYTES, bytes);
        self.sample_registries(samples);
    }
}

impl RemoteLayers {
    fn sample_registries(&self, samples: &mut Samples) {
        let hosts = self.opener.registry.stats();
        let by_host =
            |value: fn(&HostStats) -> u64| hosts.iter().map(move |host| (host.host.clone(), value(host)));
        samples.labelled(&names::REGISTRY_REQUESTS, by_host(|host| host.requests));
        samples.labelled(&names::REGISTRY_RECEIVED, by_host(|host| host.bytes_received));
        samples.labelled(&names::REGISTRY_RETRIES, by_host(|host| host.retries));
        samples.labelled(&names::REGISTRY_UNAUTHORIZED, by_host(|host| host.unauthorized));
        samples.labelled(&names::REGISTRY_TOKENS, by_host(|host| host.token_requests));
        samples.labelled(&names::REGISTRY_REDIRECTS, by_host(|host| host.redirects));
        samples.labelled(&names::REGISTRY_WRONG_BYTES, by_host(|host| host.wrong_bytes));
        sample_credentials(&hosts, samples);
    }
}

/// Where credentials came from and what became of them, over all hosts.
fn sample_credentials(hosts: &[HostStats], samples: &mut Samples) {
    let by_source = |value: fn(&LoginStats) -> u64| {
        SourceKind::ALL.map(|kind| {
            let of_kind = hosts.iter().flat_map(|host| &host.logins).filter(|(other, _)| *other == kind);
            (kind.to_string(), of_kind.map(|(_, logins)| value(logins)).sum::<u64>())
        })
    };
    samples.labelled(&names::CREDENTIALS_USED, by_source(|logins| logins.used));
    samples.labelled(&names::CREDENTIALS_REFUSED, by_source(|logins| logins.refused));
    samples.labelled(&names::CREDENTIALS_FAILED, by_source(|logins| logins.failed));
    let sum = |value: fn(&HostStats) -> u64| hosts.iter().map(value).sum::<u64>();
    let outcomes = [("found", sum(|host| host.refreshes)), ("nothing", sum(|host| host.refreshes_failed))];
    samples.labelled(&names::CREDENTIAL_REFRESHES, outcomes.map(|(name, value)| (name.to_owned(), value)));
}
