//! Every metric: name, type, unit, labels and meaning. `docs/metrics.md` is written from this list.

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name; a counter's is followed by `_total` in the output, as OpenMetrics has it.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The unit of its value.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and starts at zero with the daemon.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, unit, labels, help }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit: "seconds", labels, help }
}

/// Calls of containerd.
pub const RPC_REQUESTS: Metric = counter(
    "starling_rpc_requests",
    "calls",
    &["method", "code"],
    "Calls of the snapshots service by gRPC code",
);
/// How long they took.
pub const RPC_DURATION: Metric =
    histogram("starling_rpc_duration_seconds", &["method"], "Time to answer a call of the snapshots service");
/// Prepares that could have been lazy.
pub const PREPARES: Metric = counter(
    "starling_prepares",
    "calls",
    &["outcome", "reason"],
    "Prepares of image layers: lazy, or fall-back with its reason",
);
/// Opening layers.
pub const LAYER_OPEN_DURATION: Metric = histogram(
    "starling_layer_open_duration_seconds",
    &[],
    "Time to open a layer that was not on disk: end of the blob, table of contents, index",
);
/// Layers there.
pub const LAYERS: Metric = gauge("starling_layers", "layers", &["state"], "Lazy layers, complete or partial");
/// Their bytes.
pub const LAYER_BYTES: Metric =
    gauge("starling_layer_bytes", "bytes", &["state"], "File bytes of all lazy layers, present or missing");
/// Reads served from disk.
pub const READ_HITS: Metric =
    counter("starling_read_hits", "reads", &[], "Reads of lazy layers that were served from disk");
/// Reads that waited.
pub const READ_MISSES: Metric =
    counter("starling_read_misses", "reads", &[], "Reads of lazy layers that waited for bytes to be fetched");
/// Bytes from registries into layers.
pub const FETCHED_BYTES: Metric = counter(
    "starling_fetched_bytes",
    "bytes",
    &["class"],
    "Compressed bytes fetched for layers: demand with what was read ahead, planned, or background",
);
/// Requests for them.
pub const FETCH_REQUESTS: Metric = counter(
    "starling_fetch_requests",
    "requests",
    &["class"],
    "Range requests made for layers, by the class they were begun for",
);
/// What starts needed.
pub const RECORDED_BYTES: Metric = gauge(
    "starling_recorded_bytes",
    "bytes",
    &[],
    "Compressed bytes of the chunks of present layers that were read while starts were recorded",
);
/// Profiles looked for.
pub const PROFILE_LOOKUPS: Metric = counter(
    "starling_profile_lookups",
    "images",
    &["outcome"],
    "Images whose profile was looked for in their registry: found, none there, refused or failed",
);
/// Chunks that did not match.
pub const VERIFY_FAILURES: Metric =
    counter("starling_verify_failures", "chunks", &[], "Chunks whose bytes did not match their digest");
/// Disk.
pub const CACHE_BYTES: Metric = gauge("starling_cache_bytes", "bytes", &[], "Disk that layers take");
/// What it may be.
pub const CACHE_QUOTA: Metric =
    gauge("starling_cache_quota_bytes", "bytes", &[], "Disk that layers may take (`[cache]`)");
/// Whether what is fetched is kept.
pub const CACHE_KEEPING: Metric = gauge(
    "starling_cache_keeping",
    "",
    &[],
    "1 while what is fetched is kept, 0 while it is served and not kept because there is no room",
);
/// What was served without being kept.
pub const UNCACHED_CHUNKS: Metric =
    counter("starling_uncached_chunks", "chunks", &[], "Chunks that were verified, served and not kept");
/// What went to make room.
pub const EVICTED_BYTES: Metric = counter(
    "starling_evicted_bytes",
    "bytes",
    &[],
    "Disk of layers that no snapshot referred to and that were deleted to make room",
);
/// What went though its layer is in use.
pub const GIVEN_BACK_BYTES: Metric = counter(
    "starling_given_back_bytes",
    "bytes",
    &[],
    "File bytes of layers in use that no start was seen to read and that were given back to make room",
);
/// What the disk lost.
pub const DAMAGED_CHUNKS: Metric = counter(
    "starling_damaged_chunks",
    "chunks",
    &[],
    "Chunks on disk that did not match their digest any more, and were dropped",
);
/// Memory on its way.
pub const MEMORY_IN_FLIGHT: Metric = gauge(
    "starling_in_flight_memory_bytes",
    "bytes",
    &[],
    "Part of `[store] memory_budget` that is taken by what is being fetched and decoded",
);
/// What waits in memory for its Prepare.
pub const EARLY_LAYERS: Metric =
    gauge("starling_early_layers", "layers", &[], "Layers read early that wait for their Prepare");
/// Its size.
pub const EARLY_BYTES: Metric =
    gauge("starling_early_bytes", "bytes", &[], "Memory of layers read early that wait for their Prepare");
/// Requests to a registry.
pub const REGISTRY_REQUESTS: Metric = counter(
    "starling_registry_requests",
    "requests",
    &["host"],
    "HTTP requests for a registry, repeated ones and followed redirects included",
);
/// Bytes from a registry.
pub const REGISTRY_RECEIVED: Metric = counter(
    "starling_registry_received_bytes",
    "bytes",
    &["host"],
    "Bytes of bodies received for a registry",
);
/// Repeated requests.
pub const REGISTRY_RETRIES: Metric =
    counter("starling_registry_retries", "requests", &["host"], "Requests that repeated a failed one");
/// Answers 401.
pub const REGISTRY_UNAUTHORIZED: Metric = counter(
    "starling_registry_unauthorized",
    "requests",
    &["host"],
    "Answers 401 that led to a new authentication",
);
/// Tokens.
pub const REGISTRY_TOKENS: Metric = counter(
    "starling_registry_token_requests",
    "requests",
    &["host"],
    "Requests to a registry's token service",
);
/// Redirects.
pub const REGISTRY_REDIRECTS: Metric = counter(
    "starling_registry_redirects",
    "requests",
    &["host"],
    "Redirects that a registry sent and that were followed",
);
/// Wrong bytes.
pub const REGISTRY_WRONG_BYTES: Metric = counter(
    "starling_registry_wrong_bytes",
    "answers",
    &["host"],
    "Answers whose bytes were not what they should have been; a mirror that sends one is left out for an hour",
);
/// Credentials that were good.
pub const CREDENTIALS_USED: Metric = counter(
    "starling_credentials_used",
    "logins",
    &["source"],
    "Authorizations for registries that were got with credentials of a source, or with none (docs/credentials.md)",
);
/// Credentials that were not.
pub const CREDENTIALS_REFUSED: Metric = counter(
    "starling_credentials_refused",
    "logins",
    &["source"],
    "Credentials of a source that a registry or its token service refused",
);
/// Sources that did not work.
pub const CREDENTIALS_FAILED: Metric = counter(
    "starling_credentials_failed",
    "questions",
    &["source"],
    "Times that a source of credentials could not be asked: a file, a program or a cluster did not answer",
);
/// Searches.
pub const CREDENTIAL_REFRESHES: Metric = counter(
    "starling_credential_refreshes",
    "searches",
    &["outcome"],
    "Searches of all sources for an authorization, at first, before one ends and when one was refused",
);
/// What the kernel asks.
pub const FUSE_REQUESTS: Metric = counter(
    "starling_fuse_requests",
    "requests",
    &["operation"],
    "Requests of the kernel for lazy layers; what it has cached it does not ask for",
);
/// What it gets.
pub const FUSE_READ_BYTES: Metric =
    counter("starling_fuse_read_bytes", "bytes", &[], "Bytes of files handed to the kernel");
/// What it does not get.
pub const FUSE_ERRORS: Metric =
    counter("starling_fuse_errors", "requests", &[], "Requests of the kernel that failed with an I/O error");
/// Who waits.
pub const FUSE_WAITING: Metric =
    gauge("starling_fuse_waiting_reads", "reads", &[], "Reads that wait for bytes to be fetched right now");
/// How long they waited.
pub const FUSE_WAITED: Metric = counter(
    "starling_fuse_waited_milliseconds",
    "milliseconds",
    &[],
    "Sum of the time that reads waited for bytes to be fetched",
);
/// Each of them.
pub const FUSE_STALLS: Metric = histogram(
    "starling_fuse_stall_seconds",
    &[],
    "Time that reads waited for bytes to be fetched, each read that waited and has its answer",
);
/// The worst of them.
pub const FUSE_LONGEST_STALL: Metric = gauge(
    "starling_fuse_longest_stall_milliseconds",
    "milliseconds",
    &[],
    "The longest time that a read waited for bytes to be fetched since the daemon started",
);
/// Descriptors.
pub const OPEN_FDS: Metric =
    gauge("process_open_fds", "descriptors", &[], "Open file descriptors of the daemon");
/// Memory.
pub const RESIDENT_MEMORY: Metric =
    gauge("process_resident_memory_bytes", "bytes", &[], "Resident memory of the daemon");
/// Its private part.
pub const ANONYMOUS_MEMORY: Metric = gauge(
    "starling_anonymous_memory_bytes",
    "bytes",
    &[],
    "Resident memory that is not the page cache of files (RssAnon and RssShmem)",
);
/// Start.
pub const START_TIME: Metric =
    gauge("process_start_time_seconds", "seconds", &[], "When the daemon started, since the epoch");
/// Version.
pub const BUILD_INFO: Metric = gauge("starling_build_info", "none", &["version"], "Always 1");

/// All of them, in the order of the reference.
pub const ALL: &[&Metric] = &[
    &RPC_REQUESTS,
    &RPC_DURATION,
    &PREPARES,
    &LAYER_OPEN_DURATION,
    &LAYERS,
    &LAYER_BYTES,
    &READ_HITS,
    &READ_MISSES,
    &FETCHED_BYTES,
    &FETCH_REQUESTS,
    &RECORDED_BYTES,
    &PROFILE_LOOKUPS,
    &VERIFY_FAILURES,
    &CACHE_BYTES,
    &CACHE_QUOTA,
    &CACHE_KEEPING,
    &UNCACHED_CHUNKS,
    &EVICTED_BYTES,
    &GIVEN_BACK_BYTES,
    &DAMAGED_CHUNKS,
    &MEMORY_IN_FLIGHT,
    &EARLY_LAYERS,
    &EARLY_BYTES,
    &REGISTRY_REQUESTS,
    &REGISTRY_RECEIVED,
    &REGISTRY_RETRIES,
    &REGISTRY_UNAUTHORIZED,
    &REGISTRY_TOKENS,
    &REGISTRY_REDIRECTS,
    &REGISTRY_WRONG_BYTES,
    &CREDENTIALS_USED,
    &CREDENTIALS_REFUSED,
    &CREDENTIALS_FAILED,
    &CREDENTIAL_REFRESHES,
    &FUSE_REQUESTS,
    &FUSE_READ_BYTES,
    &FUSE_ERRORS,
    &FUSE_WAITING,
    &FUSE_WAITED,
    &FUSE_STALLS,
    &FUSE_LONGEST_STALL,
    &OPEN_FDS,
    &RESIDENT_MEMORY,
    &ANONYMOUS_MEMORY,
    &START_TIME,
    &BUILD_INFO,
];

// === impl Metric ===

impl Metric {
    /// The name as a scrape shows it.
    pub fn exported_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }
}

// === impl Kind ===

impl Kind {
    /// The type's name in Prometheus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}
