//! The one table of keys: what each is called, where it goes, what it does, or why it does nothing.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::{
    Config,
    setting::{Setting, found, integer},
};

/// A key of the configuration file.
pub(super) struct Key {
    /// Its name with its table, joined by dots.
    pub(super) path: &'static str,
    /// Whose it is.
    pub(super) origin: Origin,
    /// What it does, for the reference.
    pub(super) doc: &'static str,
    /// Whether it does it.
    pub(super) standing: Standing,
}

/// Whose key it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// stargz-snapshotter has it too.
    Stargz,
    /// Only here.
    Starling,
}

/// Whether a key does something.
pub(super) enum Standing {
    /// It sets a field to a value within bounds.
    Works { field: fn(&mut Config) -> &mut dyn Setting, bounds: RangeInclusive<u64> },
    /// It parses and does nothing, and this is why.
    Ignored { kind: Kind, why: &'static str },
}

/// The type of a key that does nothing.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Bool,
    Integer,
    String,
    Table,
}

const ANY: RangeInclusive<u64> = 0..=u64::MAX;
/// A day: longer waits are mistakes in the unit.
const UP_TO_A_DAY: RangeInclusive<u64> = 1..=86_400;

const fn works(path: &'static str, field: fn(&mut Config) -> &mut dyn Setting, doc: &'static str) -> Key {
    Key { path, origin: Origin::Stargz, doc, standing: Standing::Works { field, bounds: ANY } }
}

const fn own(
    path: &'static str,
    bounds: RangeInclusive<u64>,
    field: fn(&mut Config) -> &mut dyn Setting,
    doc: &'static str,
) -> Key {
    Key { path, origin: Origin::Starling, doc, standing: Standing::Works { field, bounds } }
}

const fn bounded(
    path: &'static str,
    bounds: RangeInclusive<u64>,
    field: fn(&mut Config) -> &mut dyn Setting,
    doc: &'static str,
) -> Key {
    Key { path, origin: Origin::Stargz, doc, standing: Standing::Works { field, bounds } }
}

const fn ignored(path: &'static str, kind: Kind, why: &'static str) -> Key {
    Key { path, origin: Origin::Stargz, doc: "", standing: Standing::Ignored { kind, why } }
}

/// Every key, each table's keys together.
pub(super) static KEYS: &[Key] = &[
    works("noprefetch", |c| &mut c.noprefetch, "Fetch nothing ahead of the first reads."),
    works(
        "prefetch_size",
        |c| &mut c.prefetch_size,
        "Fetch that much of a layer's beginning as soon as it is mounted, if the layer has no landmark and the snapshot \
         no label `containerd.io/snapshot/remote/stargz.prefetch`. 0: nothing.",
    ),
    works(
        "no_background_fetch",
        |c| &mut c.no_background_fetch,
        "Leave the rest of a layer where it is. Normally it is fetched when nobody waits for anything else.",
    ),
    bounded(
        "max_concurrency",
        1..=1024,
        |c| &mut c.max_concurrency,
        "Requests of full length that the background has in flight, of all layers together. Of short ones it has up to twice as many.",
    ),
    bounded(
        "resolve_result_entry_ttl_sec",
        UP_TO_A_DAY,
        |c| &mut c.resolve_result_entry_ttl_sec,
        "How long a layer that was read early waits for its own Prepare.",
    ),
    works(
        "metrics_address",
        |c| &mut c.metrics_address,
        "`host:port` where `/metrics` is served by HTTP. Empty: only on the admin socket.",
    ),
    works(
        "no_prometheus",
        |c| &mut c.no_prometheus,
        "Serve no metrics, neither there nor on the admin socket.",
    ),
    bounded(
        "blob.fetching_timeout_sec",
        UP_TO_A_DAY,
        |c| &mut c.blob.fetching_timeout_sec,
        "The time for one fetch from a registry with all its retries.",
    ),
    bounded("blob.max_retries", 0..=100, |c| &mut c.blob.max_retries, "Tries after the first one failed."),
    bounded(
        "blob.min_wait_msec",
        1..=600_000,
        |c| &mut c.blob.min_wait_msec,
        "The pause before the first retry; it doubles with each, and part of it is random.",
    ),
    bounded(
        "blob.max_wait_msec",
        1..=600_000,
        |c| &mut c.blob.max_wait_msec,
        "The longest pause between two tries of our own choice. One that a registry asks for (`Retry-After`) is kept to \
         also where it is longer, as long as `fetching_timeout_sec` holds; a fetch that it would make longer fails at \
         once.",
    ),
    works(
        "directory_cache.fadv_dontneed",
        |c| &mut c.directory_cache.fadv_dontneed,
        "Give up the page cache of a layer's content file whenever new content was synced to disk. Saves memory where \
         the kernel would keep a byte twice, for the file and for the FUSE mount; costs a read of the disk where only \
         the mount's copy was dropped.",
    ),
    bounded(
        "resolver.request_timeout_sec",
        0..=86_400,
        |c| &mut c.resolver.request_timeout_sec,
        "How long a registry may be silent, before its answer or within it. 0: the default.",
    ),
    works(
        "resolver.host",
        |c| &mut c.resolver.host,
        "`[[resolver.host.\"<host>\".mirrors]]` with `host`, `insecure` (no TLS), `request_timeout_sec` (how long it may be \
         silent; 0: as long as others, below 0: for a day) and `header` (sent to this host only). Mirrors are asked in this \
         order, the registry itself last unless it is named among them. A registry with such an entry for another host is \
         not looked up in `registry.config_path`.",
    ),
    own(
        "resolver.insecure",
        ANY,
        |c| &mut c.resolver.insecure,
        "Registries (`host` or `host:port`) that are spoken to without TLS. Loopback addresses always are.",
    ),
    own(
        "resolver.ca_files",
        ANY,
        |c| &mut c.resolver.ca_files,
        "PEM files with certificate authorities to trust beside the system's.",
    ),
    works(
        "registry.config_path",
        |c| &mut c.registry.config_path,
        "Directories with a directory for each registry and a `hosts.toml` or certificate files in it, separated by colons; \
         read as containerd reads them, and again whenever they change. Empty: none.",
    ),
    own(
        "registry.docker_config",
        ANY,
        |c| &mut c.registry.docker_config,
        "Docker's `daemon.json`, whose `registry-mirrors` and `insecure-registries` count for registries of which neither \
         `resolver.host` nor `config_path` says anything. Empty: none.",
    ),
    works(
        "cri_keychain.enable_keychain",
        |c| &mut c.cri_keychain.enable_keychain,
        "Pass calls of kubelet's image service on to containerd, and read layers with the credentials that kubelet gave \
         with the pull. kubelet needs `--image-service-endpoint=unix://` and the socket.",
    ),
    works(
        "cri_keychain.image_service_path",
        |c| &mut c.cri_keychain.image_service_path,
        "The socket that those calls are passed on to.",
    ),
    works(
        "cri_keychain.listen_path",
        |c| &mut c.cri_keychain.listen_path,
        "The socket for kubelet. Empty: the one of `--address`, beside containerd's calls.",
    ),
    own(
        "cri_keychain.max_age_sec",
        60..=365 * 86_400,
        |c| &mut c.cri_keychain.max_age_sec,
        "How long credentials of a pull are kept after it, also across restarts, in `credentials/` below the root, \
         encrypted with a key that only root may read.",
    ),
    own(
        "credentials.kubelet_config",
        ANY,
        |c| &mut c.credentials.kubelet_config,
        "What kubelet is given with `--image-credential-provider-config`, a file or a directory: its credential \
         providers are asked. Read again when it changes.",
    ),
    own(
        "credentials.kubelet_bin_dir",
        ANY,
        |c| &mut c.credentials.kubelet_bin_dir,
        "What kubelet is given with `--image-credential-provider-bin-dir`: where those programs are.",
    ),
    own(
        "credentials.docker_config",
        ANY,
        |c| &mut c.credentials.docker_config,
        "Docker's `config.json`. Empty: the one in `$DOCKER_CONFIG`, else in `~/.docker`. Read again when it changes.",
    ),
    own(
        "credentials.helper_timeout_sec",
        1..=300,
        |c| &mut c.credentials.helper_timeout_sec,
        "The time for one credential provider or credential helper.",
    ),
    own(
        "credentials.hosts",
        ANY,
        |c| &mut c.credentials.hosts,
        "`[credentials.hosts.\"<host>\"]` with `username` and `password` or `password_file` (read for each login), or \
         with `identity_token` or `registry_token`. Keep a file with secrets readable by root only.",
    ),
    works(
        "kubeconfig_keychain.enable_keychain",
        |c| &mut c.kubeconfig_keychain.enable_keychain,
        "Watch the cluster's secrets of the types `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg` and use \
         the logins in them.",
    ),
    works(
        "kubeconfig_keychain.kubeconfig_path",
        |c| &mut c.kubeconfig_keychain.kubeconfig_path,
        "How to reach the cluster; waited for if it is not there yet. Empty: `$KUBECONFIG`, else `~/.kube/config`, else \
         the service account of the pod.",
    ),
    own(
        "kubeconfig_keychain.namespaces",
        ANY,
        |c| &mut c.kubeconfig_keychain.namespaces,
        "Namespaces whose secrets are read. Empty: all.",
    ),
    own(
        "store.memory_budget",
        8 << 20..=1 << 40,
        |c| &mut c.store.memory_budget,
        "Memory for everything that is being fetched and decoded, of all layers together.",
    ),
    own(
        "store.decode_threads",
        0..=1024,
        |c| &mut c.store.decode_threads,
        "Threads that inflate and verify. 0: as many as there are processors.",
    ),
    own(
        "store.read_timeout_sec",
        UP_TO_A_DAY,
        |c| &mut c.store.read_timeout_sec,
        "How long a read of bytes that are not there yet may take before it fails with an I/O error.",
    ),
    own(
        "store.min_window",
        4 << 10..=1 << 30,
        |c| &mut c.store.min_window,
        "Fewest compressed bytes that a missing byte asks for. Between this and the next the size follows bandwidth, \
         delay and the way a file is read.",
    ),
    own(
        "store.max_window",
        4 << 10..=1 << 30,
        |c| &mut c.store.max_window,
        "Most compressed bytes that a missing byte asks for.",
    ),
    own(
        "store.background_window",
        4 << 10..=1 << 30,
        |c| &mut c.store.background_window,
        "Compressed bytes that the background asks for at once.",
    ),
    own(
        "cache.quota",
        0..=1 << 60,
        |c| &mut c.cache.quota,
        "Disk that all layers may take. Beyond it layers that no snapshot refers to are deleted, the least recently used \
         first; if that does not do, what is fetched is verified and served but not kept. 0: `quota_percent` of the file \
         system.",
    ),
    own(
        "cache.quota_percent",
        1..=100,
        |c| &mut c.cache.quota_percent,
        "The share of the file system that all layers may take if `quota` is 0.",
    ),
    own(
        "cache.min_free",
        0..=1 << 60,
        |c| &mut c.cache.min_free,
        "Free space of the file system, at most a twentieth of it, below which nothing more is kept.",
    ),
    own(
        "cache.keep_unused",
        ANY,
        |c| &mut c.cache.keep_unused,
        "Keep layers that no snapshot refers to any more for the next image that has them, as far as the quota goes. \
         Otherwise containerd's Cleanup deletes them.",
    ),
    own(
        "cache.evict_unread",
        ANY,
        |c| &mut c.cache.evict_unread,
        "When layers that snapshots refer to take more than they may: give back what no start of a container was seen to read \
         of them (`[profile]`; all of it where nothing is recorded), the least recently used layers first. What is read of it later is fetched again.",
    ),
    own(
        "cache.verify_hours",
        0..=8760,
        |c| &mut c.cache.verify_hours,
        "So often all that is on disk is read again and compared with its digests, in the background: what does not match is \
         dropped and fetched again. 0: only when `starling cache verify` is called.",
    ),
    own(
        "profile.record_sec",
        0..=86_400,
        |c| &mut c.profile.record_sec,
        "For how long after the first read of a layer the order of its reads is recorded, so that the next cold start \
         finds them fetched. 0: nothing is recorded.",
    ),
    own(
        "profile.keep",
        0..=1 << 40,
        |c| &mut c.profile.keep,
        "Disk for recorded profiles, which outlive their layers; the least recently useful ones go first.",
    ),
    own(
        "profile.referrers",
        ANY,
        |c| &mut c.profile.referrers,
        "Look for a profile in the registry of an image of which nothing was recorded yet, in the background.",
    ),
    own(
        "prepare.deadline_sec",
        1..=600,
        |c| &mut c.prepare.deadline_sec,
        "The time for opening a layer, after which Prepare answers with ordinary mounts.",
    ),
    own(
        "prepare.parallel_layers",
        1..=128,
        |c| &mut c.prepare.parallel_layers,
        "Layers of one image that are opened at one time, ahead of their own Prepare.",
    ),
    own(
        "prepare.early_layers",
        0..=65_536,
        |c| &mut c.prepare.early_layers,
        "Layers whose ends are kept in memory until their Prepare says which TOC is theirs.",
    ),
    own("prepare.early_bytes", 0..=1 << 40, |c| &mut c.prepare.early_bytes, "Memory for those."),
    own(
        "mount.threads",
        0..=1024,
        |c| &mut c.mount.threads,
        "Threads that answer the kernel. 0: a number that suits the machine.",
    ),
    own(
        "mount.read_ahead",
        0..=1 << 30,
        |c| &mut c.mount.read_ahead,
        "The kernel's read-ahead for files of lazy layers.",
    ),
    own(
        "admin.address",
        ANY,
        |c| &mut c.admin.address,
        "The admin socket, which `starling status` reads. Empty: `admin.sock` in the directory of `--address`.",
    ),
    ignored(
        "http_cache_type",
        Kind::String,
        "compressed bytes are not kept: each is inflated and verified when it comes, and stored once",
    ),
    ignored(
        "filesystem_cache_type",
        Kind::String,
        "verified content is always on disk: it outlives the daemon, and the kernel keeps in memory what is read",
    ),
    ignored(
        "resolve_result_entry",
        Kind::Integer,
        "stargz-snapshotter ignores it too; use `resolve_result_entry_ttl_sec`",
    ),
    ignored(
        "prefetch_timeout_sec",
        Kind::Integer,
        "it bounds how long a container's start waits for a prefetch, and none ever waits",
    ),
    ignored(
        "prefetch_async_size",
        Kind::Integer,
        "it says which prefetches are too large to wait for; every prefetch, of any size, is asynchronous",
    ),
    ignored("debug", Kind::Bool, "use `--log-level debug` or `--log-level trace`"),
    ignored(
        "allow_no_verification",
        Kind::Bool,
        "it would honour the label `containerd.io/snapshot/remote/stargz.skipverify`; verification cannot be turned off",
    ),
    ignored(
        "disable_verification",
        Kind::Bool,
        "every byte is verified before it is stored or served; that cannot be turned off",
    ),
    ignored(
        "log_file_access",
        Kind::Bool,
        "the kernel opens files of lazy layers without asking the daemon, which so cannot log who opens what",
    ),
    ignored(
        "debug_address",
        Kind::String,
        "it served a Go runtime's profiles; the admin socket has `/status` and `/metrics`",
    ),
    ignored("ipfs", Kind::Bool, "layers come from registries only"),
    ignored(
        "metadata_store",
        Kind::String,
        "a layer's metadata is one memory-mapped file, which is neither held in memory nor in a database",
    ),
    ignored(
        "blob.valid_interval",
        Kind::Integer,
        "it says how often a registry is asked whether a layer is still there; only missing bytes are asked for",
    ),
    ignored(
        "blob.check_always",
        Kind::Bool,
        "a container's start does not depend on the registry, so no start asks whether it is reachable",
    ),
    ignored(
        "blob.chunk_size",
        Kind::Integer,
        "the size of a fetch follows bandwidth and delay, between `[store] min_window` and `max_window`",
    ),
    ignored(
        "blob.prefetch_chunk_size",
        Kind::Integer,
        "a prefetch asks for as much at once as the background does: use `[store] background_window`",
    ),
    ignored("blob.force_single_range_mode", Kind::Bool, "every request is for a single range anyway"),
    ignored(
        "directory_cache.max_lru_cache_entry",
        Kind::Integer,
        "it counts chunks that are held in memory beside the disk; here that is the page cache, which needs no limit",
    ),
    ignored(
        "directory_cache.max_cache_fds",
        Kind::Integer,
        "it bounds open files of a cache with a file for each chunk; here a layer has one, open while it is shown",
    ),
    ignored(
        "directory_cache.sync_add",
        Kind::Bool,
        "always so: a read is answered after its chunks were written to the layer's content file",
    ),
    ignored(
        "directory_cache.direct",
        Kind::Bool,
        "always so: chunks go to the disk without a cache in the daemon's memory before it",
    ),
    ignored(
        "fuse.attr_timeout",
        Kind::Integer,
        "a layer never changes, so the kernel may keep its attributes without a limit",
    ),
    ignored(
        "fuse.entry_timeout",
        Kind::Integer,
        "names in a layer never change, so the kernel may keep them, and that others are missing, without a limit",
    ),
    ignored(
        "fuse.passthrough",
        Kind::Bool,
        "a file would have to be fetched whole when it is opened; opening without asking the daemon is quicker",
    ),
    ignored(
        "fuse.merge_buffer_size",
        Kind::Integer,
        "it is memory for joining a file's chunks for passthrough; a layer's content file has them joined",
    ),
    ignored(
        "fuse.merge_worker_count",
        Kind::Integer,
        "it is threads for joining a file's chunks for passthrough; `[store] decode_threads` is for what is done here",
    ),
    ignored(
        "fuse_manager.enable",
        Kind::Bool,
        "this version serves FUSE from the daemon itself, not from a second process",
    ),
    ignored("fuse_manager.address", Kind::String, "there is no second process that would listen there"),
    ignored("fuse_manager.path", Kind::String, "there is no second program to start"),
    ignored(
        "fuse_manager.metrics_address",
        Kind::String,
        "all metrics are the daemon's: use `metrics_address`",
    ),
    ignored(
        "snapshotter.allow_invalid_mounts_on_restart",
        Kind::Bool,
        "always so: a start never needs the registry, and a layer that is not whole opens when it can",
    ),
    ignored("root_path", Kind::String, "use the flag `--root`"),
    ignored(
        "cri_keychain_image_service_path",
        Kind::String,
        "it belongs to the plugin that is built into containerd; use `[cri_keychain] image_service_path`",
    ),
    ignored(
        "registry.mirrors",
        Kind::Table,
        "it belongs to the plugin that is built into containerd; use `registry.config_path` or `[resolver.host]`",
    ),
    ignored(
        "registry.configs",
        Kind::Table,
        "it belongs to the plugin that is built into containerd; use `registry.config_path` and \
         `[credentials.hosts]`",
    ),
];

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether some key lies below `path`.
pub(super) fn is_table(path: &str) -> bool {
    tables().any(|table| table == path)
}

/// The known name that is nearest to `path`: the same key of another table, or the least edited one if it is near
/// enough to be meant.
pub(super) fn nearest(path: &str, table: bool) -> Option<&'static str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    if let Some(moved) = KEYS.iter().find(|key| !table && last(key.path) == last(path)) {
        return Some(moved.path);
    }
    let names = KEYS.iter().map(|key| key.path).filter(|_| !table).chain(tables().filter(|_| table));
    let (distance, name) = names.map(|name| (strsim::damerau_levenshtein(path, name), name)).min()?;
    // A third of the letters wrong is still a slip; more is another word.
    (distance * 3 <= path.len().max(3)).then_some(name)
}

fn tables() -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(|key| key.path.rsplit_once('.')).map(|(table, _)| table)
}

impl Kind {
    /// Whether `value` is of this type.
    pub(super) fn check(self, value: &DeValue<'_>) -> Result<(), String> {
        let (fits, expected) = match self {
            Self::Bool => (value.is_bool(), "true or false"),
            Self::Integer => (integer(value, &ANY).is_ok(), "a whole number"),
            Self::String => (value.is_str(), "a string"),
            Self::Table => (value.is_table(), "a table"),
        };
        if fits { Ok(()) } else { Err(format!("{expected}, not {}", found(value))) }
    }
}
