//! The daemon's configuration: one typed value, its defaults in one place.
//!
//! The table in `config/keys.rs` is the only list of keys: the parser, the messages about unknown names and
//! `docs/configuration.md` are made from it. Every key of stargz-snapshotter's configuration parses; those that have no
//! meaning here become a [`Warning`]. Nothing in a file can turn verification off.

mod document;
mod keys;
mod logins;
mod mirrors;
mod reference;
mod setting;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use logins::{HostLogin, Logins};
pub use mirrors::{Hosts, Mirror};
pub use reference::reference;
pub use setting::{ByteSize, Milliseconds, Seconds};

/// Where the configuration is looked for when no file is named.
pub const DEFAULT_PATH: &str = "/etc/starling/config.toml";

/// Everything that a configuration file can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Bytes from the start of a layer that are fetched at once when it has no landmark.
    pub prefetch_size: ByteSize,
    /// No prefetch at all.
    pub noprefetch: bool,
    /// Nothing is fetched but what is read or prefetched.
    pub no_background_fetch: bool,
    /// Requests that the background has in flight, of all layers together.
    pub max_concurrency: u64,
    /// How long something read early waits for its own Prepare.
    pub resolve_result_entry_ttl_sec: Seconds,
    /// No metrics, neither on `metrics_address` nor on the admin socket.
    pub no_prometheus: bool,
    /// `host:port` that serves `/metrics`; empty for none.
    pub metrics_address: String,
    /// `[blob]`
    pub blob: Blob,
    /// `[directory_cache]`
    pub directory_cache: DirectoryCache,
    /// `[resolver]`
    pub resolver: Resolver,
    /// `[registry]`
    pub registry: Registry,
    /// `[credentials]`
    pub credentials: CredentialPlaces,
    /// `[cri_keychain]`
    pub cri_keychain: CriKeychain,
    /// `[kubeconfig_keychain]`
    pub kubeconfig_keychain: KubeconfigKeychain,
    /// `[store]`
    pub store: Store,
    /// `[cache]`
    pub cache: Cache,
    /// `[profile]`
    pub profile: Profile,
    /// `[prepare]`
    pub prepare: Prepare,
    /// `[mount]`
    pub mount: Mount,
    /// `[admin]`
    pub admin: Admin,
}

/// Reading blobs from registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The time for one fetch with all its retries.
    pub fetching_timeout_sec: Seconds,
    /// Tries after the first.
    pub max_retries: u64,
    /// The first pause between tries.
    pub min_wait_msec: Milliseconds,
    /// The longest pause between tries that no registry asked for.
    pub max_wait_msec: Milliseconds,
}

/// The cache on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryCache {
    /// Content leaves the page cache once it is on disk.
    pub fadv_dontneed: bool,
}

/// Finding registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    /// The time for the answer to one request to begin.
    pub request_timeout_sec: Seconds,
    /// Registries that are spoken to without TLS.
    pub insecure: Vec<String>,
    /// PEM files with certificate authorities to trust beside the system's.
    pub ca_files: Vec<String>,
    /// `[resolver.host]`
    pub host: Hosts,
}

/// What other programs are told of registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Directories with a directory for each registry, separated by colons.
    pub config_path: String,
    /// Docker's `daemon.json`, if its word on registries counts.
    pub docker_config: Option<PathBuf>,
}

/// Where credentials for registries are looked for, beside the two keychains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialPlaces {
    /// kubelet's configuration of credential providers; none are asked without it.
    pub kubelet_config: Option<PathBuf>,
    /// The directory of kubelet's credential providers.
    pub kubelet_bin_dir: Option<PathBuf>,
    /// Docker's configuration file; none for the one that Docker itself would use.
    pub docker_config: Option<PathBuf>,
    /// The time for one credential provider or helper.
    pub helper_timeout_sec: Seconds,
    /// `[credentials.hosts]`
    pub hosts: Logins,
}

/// The proxy of the CRI image service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CriKeychain {
    /// Whether there is one.
    pub enable_keychain: bool,
    /// The socket of the image service that calls are passed on to.
    pub image_service_path: Option<PathBuf>,
    /// The socket for kubelet; none for the one for containerd.
    pub listen_path: Option<PathBuf>,
    /// How long credentials of a pull are kept.
    pub max_age_sec: Seconds,
}

/// Secrets of a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeconfigKeychain {
    /// Whether they are read.
    pub enable_keychain: bool,
    /// How to reach the cluster; none for what its other clients would use.
    pub kubeconfig_path: Option<PathBuf>,
    /// Namespaces whose secrets are read; none for all.
    pub namespaces: Vec<String>,
}

/// What is on disk and on its way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Memory for all that is being fetched and decoded.
    pub memory_budget: ByteSize,
    /// Threads that decode; 0 for as many as there are processors.
    pub decode_threads: u64,
    /// How long a read may wait before it fails.
    pub read_timeout_sec: Seconds,
    /// Fewest compressed bytes that a missing byte asks for.
    pub min_window: ByteSize,
    /// Most compressed bytes that a missing byte asks for.
    pub max_window: ByteSize,
    /// Compressed bytes that the background asks for at once.
    pub background_window: ByteSize,
}

/// How much disk layers may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Bytes that all layers may take; 0 for a share of the file system.
    pub quota: ByteSize,
    /// That share.
    pub quota_percent: u64,
    /// Bytes of the file system that are left free.
    pub min_free: ByteSize,
    /// Whether layers that no snapshot refers to stay, as far as the quota goes.
    pub keep_unused: bool,
    /// Whether layers in use give back what no start reads.
    pub evict_unread: bool,
    /// Hours between two looks at all that is on disk; 0 for none.
    pub verify_hours: u64,
}

/// Recording what starts read, and fetching it first the next time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// For how long the reads of a layer are recorded; 0 for not at all.
    pub record_sec: Seconds,
    /// Bytes of all profiles.
    pub keep: ByteSize,
    /// Whether profiles are looked for in the registries of images.
    pub referrers: bool,
}

/// Opening layers when containerd asks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    /// Time after which Prepare falls back.
    pub deadline_sec: Seconds,
    /// Layers read early that may wait for their Prepare.
    pub early_layers: u64,
    /// Bytes read early that may wait for their Prepare.
    pub early_bytes: ByteSize,
    /// Layers of one image that are opened at one time.
    pub parallel_layers: u64,
}

/// The FUSE mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Threads that answer the kernel; 0 for a number that suits the machine.
    pub threads: u64,
    /// The kernel's read-ahead.
    pub read_ahead: ByteSize,
}

/// The admin socket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admin {
    /// Its path; none for `admin.sock` beside the socket for containerd.
    pub address: Option<PathBuf>,
}

/// A configuration as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The file's values on top of the defaults.
    pub config: Config,
    /// Keys that do nothing.
    pub warnings: Vec<Warning>,
}

/// A key that parses and does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Its line, from 1.
    pub line: usize,
    /// The key with its table.
    pub key: &'static str,
    /// Why it does nothing.
    pub why: &'static str,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}: create it, or name another one with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file was read, and something in it is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        problem: Problem,
    },
}

/// What is wrong at a line of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is not TOML.
    #[error("not valid TOML: {message}")]
    Syntax {
        /// What the parser said.
        message: String,
    },
    /// A name that nobody knows.
    #[error("unknown key {key:?}: {}", advice(.nearest.as_deref()))]
    UnknownKey {
        /// The name with its table.
        key: String,
        /// The known name that is nearest, if one is near.
        nearest: Option<&'static str>,
    },
    /// A value of another type or out of bounds.
    #[error("key {key:?} takes {expected}")]
    Value {
        /// The key with its table.
        key: String,
        /// What it takes and what it got.
        expected: String,
    },
}

fn advice(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("the nearest known name is {name:?}; rename or remove it"),
        None => "remove it (docs/configuration.md lists all keys)".to_owned(),
    }
}

// === impl Loaded ===

impl Loaded {
    /// Logs what in the file does nothing.
    pub fn log(&self) {
        for Warning { line, key, why } in &self.warnings {
            tracing::warn!(line, key, why, "a key of the configuration does nothing");
        }
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            prefetch_size: ByteSize(0),
            noprefetch: false,
            no_background_fetch: false,
            max_concurrency: 2,
            resolve_result_entry_ttl_sec: Seconds(120),
            no_prometheus: false,
            metrics_address: String::new(),
            blob: Blob {
                fetching_timeout_sec: Seconds(60),
                max_retries: 7,
                min_wait_msec: Milliseconds(100),
                max_wait_msec: Milliseconds(5_000),
            },
            directory_cache: DirectoryCache { fadv_dontneed: false },
            resolver: Resolver {
                request_timeout_sec: Seconds(30),
                insecure: Vec::new(),
                ca_files: Vec::new(),
                host: Hosts::default(),
            },
            registry: Registry {
                config_path: "/etc/containerd/certs.d:/etc/docker/certs.d".to_owned(),
                docker_config: None,
            },
            credentials: CredentialPlaces {
                kubelet_config: None,
                kubelet_bin_dir: None,
                docker_config: None,
                helper_timeout_sec: Seconds(15),
                hosts: Logins::default(),
            },
            cri_keychain: CriKeychain {
                enable_keychain: false,
                image_service_path: Some(crate::cri::DEFAULT_SERVICE.into()),
                listen_path: None,
                max_age_sec: Seconds(7 * 86_400),
            },
            kubeconfig_keychain: KubeconfigKeychain {
                enable_keychain: false,
                kubeconfig_path: None,
                namespaces: Vec::new(),
            },
            store: Store {
                memory_budget: ByteSize(20 << 20),
                decode_threads: 0,
                read_timeout_sec: Seconds(60),
                min_window: ByteSize(128 << 10),
                max_window: ByteSize(8 << 20),
                background_window: ByteSize(4 << 20),
            },
            cache: Cache {
                quota: ByteSize(0),
                quota_percent: 70,
                min_free: ByteSize(1 << 30),
                keep_unused: false,
                evict_unread: false,
                verify_hours: 0,
            },
            profile: Profile { record_sec: Seconds(180), keep: ByteSize(64 << 20), referrers: true },
            prepare: Prepare {
                deadline_sec: Seconds(30),
                early_layers: 256,
                early_bytes: ByteSize(64 << 20),
                parallel_layers: 8,
            },
            mount: Mount { threads: 0, read_ahead: ByteSize(1 << 20) },
            admin: Admin::default(),
        }
    }
}

impl Config {
    /// Reads the configuration: `named` if there is one, else the default file if that exists.
    ///
    /// # Errors
    /// A named file that is missing; a file that cannot be read, is not TOML, or has a key or value that is not known.
    pub fn load(named: Option<&Path>) -> Result<Loaded, ConfigError> {
        let path = named.unwrap_or(DEFAULT_PATH.as_ref());
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(Loaded::default()),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Reads the configuration from `text`; `path` is for messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Loaded, ConfigError> {
        let mut config = Self::default();
        let warnings = document::read(text, &mut config).map_err(|(line, problem)| ConfigError::Content {
            path: path.to_owned(),
            line,
            problem,
        })?;
        Ok(Loaded { config, warnings })
    }
}
