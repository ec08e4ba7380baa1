//! The answer to `/status`, as the daemon writes and `starling status` reads it. Fields are only ever added.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A running daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Where it keeps everything.
    pub root: PathBuf,
    /// The socket on which containerd is served.
    pub address: PathBuf,
    /// What it takes of memory.
    pub memory: MemoryStatus,
    /// The disk that layers take.
    #[serde(default)]
    pub cache: CacheStatus,
    /// Its layers, by key.
    pub layers: Vec<LayerStatus>,
    /// What became of images that were pulled, the latest first.
    pub images: Vec<ImageStatus>,
    /// What was asked of registries, by host.
    pub registries: Vec<RegistryStatus>,
    /// The hosts of each registry that was asked since the start.
    #[serde(default)]
    pub hosts: Vec<HostsStatus>,
    /// Configuration keys that do nothing, with the reason.
    pub ignored_configuration: Vec<String>,
}

/// Memory of the daemon in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// All resident pages.
    pub resident_bytes: u64,
    /// Those that are not the page cache of files.
    pub anonymous_bytes: u64,
}

/// The disk that layers take, as it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Bytes of all layers, in use or not.
    pub bytes: u64,
    /// What they may take.
    pub quota_bytes: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// What is to stay free.
    pub min_free_bytes: u64,
    /// Whether what is fetched is kept.
    pub keeping: bool,
    /// Why not.
    pub why_not: Option<String>,
    /// Chunks that were served and not kept.
    pub uncached_chunks: u64,
    /// Layers that no snapshot referred to and that were deleted to make room.
    pub evicted_layers: u64,
    /// Their bytes.
    pub evicted_bytes: u64,
    /// Bytes that layers in use gave back.
    #[serde(default)]
    pub given_back_bytes: u64,
}

/// A layer on disk, in the answer to `/cache`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedLayer {
    /// The name of its directory below `layers/`.
    pub key: String,
    /// The digest of its blob.
    pub blob: String,
    /// Bytes that it takes on disk.
    pub bytes: u64,
    /// When it was last read, in seconds since the epoch, to a few seconds.
    pub used_at: u64,
    /// Whether a snapshot refers to it.
    pub in_use: bool,
}

/// What `/cache/prune` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// The keys of layers that were deleted.
    pub layers: Vec<String>,
    /// Bytes that they took.
    pub bytes: u64,
}

/// What `/cache/verify` looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The chunk to go on with; none at the layer's end.
    pub next: Option<u32>,
    /// Chunks that were looked at.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks that were damaged: they were dropped and are fetched again.
    pub damaged: Vec<u32>,
}

/// A lazy layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerStatus {
    /// The name of its directory below `layers/`.
    pub key: String,
    /// The digest of its blob.
    pub blob: String,
    /// The digest of its table of contents.
    pub toc: String,
    /// Images it is read from, the one that worked last first.
    pub references: Vec<String>,
    /// How it was read last through those of them that were asked since the daemon started.
    #[serde(default)]
    pub places: Vec<PlaceStatus>,
    /// Its directory below the FUSE mount; none while no snapshot needs it.
    pub slot: Option<u32>,
    /// How much of it is on disk.
    pub files: FilesStatus,
    /// Reads served from disk.
    pub hits: u64,
    /// Reads that waited for bytes.
    pub misses: u64,
    /// Compressed bytes fetched because of reads.
    pub demand_bytes_fetched: u64,
    /// Compressed bytes fetched because a plan said so.
    pub planned_bytes_fetched: u64,
    /// Compressed bytes fetched in the background.
    pub background_bytes_fetched: u64,
    /// Range requests made.
    pub requests: u64,
    /// Chunks that did not match their digest.
    pub verify_failures: u64,
    /// `complete`, `filling` or `off`: what the background does about it.
    pub background: String,
    /// The last thing that went wrong with it.
    pub last_error: Option<String>,
}

/// A place that a layer was read from. Never a secret, never a signed address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceStatus {
    /// The image.
    pub reference: String,
    /// The host that was asked last.
    pub host: String,
    /// The host that it sent us on to.
    pub redirect: Option<String>,
    /// Whether it sends parts of blobs; nothing if that was not seen.
    pub ranges: Option<bool>,
    /// The HTTP status of the last answer.
    pub last_answer: u16,
    /// `none asked for`, `anonymous`, `refused`, or what credentials they were.
    pub credentials: String,
    /// Who gave them.
    pub credential_source: Option<String>,
}

/// How much of a layer is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FilesStatus {
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Those that are present and verified.
    pub bytes_present: u64,
    /// Chunks of all files.
    pub chunks_total: u64,
    /// Those that are present and verified.
    pub chunks_present: u64,
    /// `bytes_present` of `bytes_total`, 100 for a layer without files.
    pub percent_present: f64,
}

/// An image whose layers were prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageStatus {
    /// Its reference, as the client spelled it.
    pub reference: String,
    /// The digest of its manifest, if the client said.
    pub manifest: Option<String>,
    /// When its last layer was prepared, in seconds since the epoch.
    pub prepared_at: u64,
    /// Its layers, in the order in which they were prepared. Layers that were there already are not asked for again.
    pub layers: Vec<ImageLayerStatus>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayerStatus {
    /// The digest of its blob.
    pub blob: String,
    /// The digest of its table of contents, if the client named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toc: Option<String>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: OutcomeStatus,
}

/// What became of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum OutcomeStatus {
    /// It is served lazily.
    Lazy {
        /// Its key.
        key: String,
    },
    /// containerd downloaded it.
    FellBack {
        /// The class of the reason.
        code: String,
        /// The reason, for people.
        reason: String,
    },
}

/// What was asked of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryStatus {
    /// Its host, as images name it, or the mirror's own name.
    pub host: String,
    /// Requests sent.
    pub requests: u64,
    /// Bytes of bodies received.
    pub bytes_received: u64,
    /// Requests that repeated a failed one.
    pub retries: u64,
}

/// The hosts that serve a registry's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsStatus {
    /// The registry, as images name it.
    pub registry: String,
    /// In the order in which they are asked while all is well.
    pub hosts: Vec<HostStatus>,
    /// What is configured and cannot be used.
    pub problems: Vec<String>,
}

/// How one host does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The address under which repositories are found.
    pub url: String,
    /// Why it is not asked in its turn, if it is not.
    pub passed_over: Option<String>,
}

// === impl FilesStatus ===

impl FilesStatus {
    /// With the percentage that follows from the bytes.
    pub fn new(bytes: (u64, u64), chunks: (u64, u64)) -> Self {
        let ((bytes_present, bytes_total), (chunks_present, chunks_total)) = (bytes, chunks);
        // A status is for people: the precision of a double is enough.
        let percent_present =
            if bytes_total == 0 { 100.0 } else { bytes_present as f64 * 100.0 / bytes_total as f64 };
        Self { bytes_total, bytes_present, chunks_total, chunks_present, percent_present }
    }
}
