//! The daemon: everything put together, from the lock on the root to the last flush.
//!
//! The order of a start is what its safety rests on: the lock first, since everything after it assumes to be alone;
//! local state and the FUSE mount next, without the network; sockets last, so that whoever can connect gets answers. A
//! predecessor's FUSE connection is answered once all its layers are attached in their slots. An end goes the other way,
//! removes no snapshot and unmounts nothing that a container uses.

mod credentials;
mod handover;
mod settings;

pub use credentials::CallsItself;

use std::{future::Future, io, sync::Arc, time::Duration};

use fusefs::OpaqueForm;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use registry::{RegistryClient, RegistryConfig};
use sd_notify::NotifyState;
use store::Store;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
};

use crate::{
    admin::{self, MemoryStatus, Reporter, Status},
    config::{Config, Loaded, Warning},
    connections::Connections,
    crash,
    cri::ImageService,
    error::SnapshotError,
    fd_store::Inherited,
    flags::Flags,
    lock::{LockError, RootLock},
    metrics::Metrics,
    overlay::OverlayOptions,
    process::Process,
    remote::{self, RemoteLayers},
    server::{self, BindError},
    snapshots::{self, Snapshots, SnapshotsConfig, Storage},
};

/// How long the servers may take to end after the daemon was told to stop; longer than the calls that they let finish.
const LAST_CALLS: Duration = Duration::from_secs(8);

/// How a daemon with `config` talks to registries, for programs beside it: without what it remembers of pulls, and without
/// secrets of a cluster.
pub fn registry_settings(config: &Config) -> RegistryConfig {
    RegistryConfig { credentials: credentials::of_files(config), ..settings::registry(config) }
}

/// A daemon that is ready to serve.
#[derive(Debug)]
pub struct Daemon {
    flags: Flags,
    snapshots: Arc<Snapshots>,
    remote: Arc<RemoteLayers>,
    store: Arc<Store>,
    connections: Arc<Connections>,
    metrics: Metrics,
    sockets: Sockets,
    images: Option<ImageService>,
    sources: admin::Sources,
    process: Process,
    ignored: Vec<Warning>,
    no_prometheus: bool,
    /// Held to the end: the root is ours until nothing of this process uses it.
    #[expect(dead_code, reason = "it is held, not used")]
    lock: RootLock,
}

/// What is listened on.
#[derive(Debug)]
struct Sockets {
    containerd: UnixListener,
    admin: UnixListener,
    /// For kubelet, if it does not use the one for containerd.
    images: Option<UnixListener>,
    metrics: Option<TcpListener>,
}

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another daemon has the root, or the root cannot be made.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The snapshots cannot be opened.
    #[error(transparent)]
    Storage(#[from] snapshots::OpenError),
    /// The snapshots cannot be read.
    #[error("cannot read the snapshots")]
    Snapshots(#[from] SnapshotError),
    /// The layers cannot be opened.
    #[error("cannot open the layers below the root")]
    Store(#[from] store::StoreError),
    /// The registry client cannot be made.
    #[error("cannot set up the registry client")]
    Registry(#[from] store::SourceError),
    /// The proxy for kubelet's calls cannot be made.
    #[error(transparent)]
    Credentials(#[from] CallsItself),
    /// The FUSE mount failed.
    #[error("cannot mount the layers")]
    Mount(#[from] fusefs::MountError),
    /// A small file of the root cannot be read.
    #[error("cannot read the state of lazy layers")]
    State(#[source] io::Error),
    /// A socket cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The address for metrics cannot be listened on.
    #[error("cannot serve metrics on {address}: free it, or change metrics_address in the configuration")]
    MetricsAddress {
        /// The address of the configuration.
        address: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why a daemon stopped serving by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket for containerd failed.
    #[error("the socket for containerd failed")]
    Containerd(#[source] tonic::transport::Error),
    /// The socket for kubelet failed.
    #[error("the socket for kubelet failed")]
    Kubelet(#[source] tonic::transport::Error),
    /// The admin socket failed.
    #[error("the admin socket failed")]
    Admin(#[source] io::Error),
    /// The address for metrics failed.
    #[error("the address for metrics failed")]
    Metrics(#[source] io::Error),
    /// A server ended in a way it never should.
    #[error("a server broke down: {0}")]
    Panicked(&'static str),
}

// === impl Daemon ===

impl Daemon {
    /// Brings everything up and answers the kernel, but nobody else yet. `inherited` is what a predecessor had kept. Must
    /// run inside a tokio runtime.
    ///
    /// # Errors
    /// What is missing or in the way, and what to do about it. A registry is never needed.
    pub async fn start(flags: Flags, loaded: Loaded, inherited: Vec<Inherited>) -> Result<Self, StartError> {
        let Loaded { config, warnings } = loaded;
        let process = Process::start();
        raise_descriptor_limit();
        let lock = RootLock::take(&flags.root)?;
        let storage = Storage::open(&flags.root.join("snapshotter"))?;
        let (remote_snapshots, chains) = (storage.remote_snapshots()?, storage.chains()?);
        let store = Store::open(settings::store(&config, &flags))?;
        let credentials = credentials::Credentials::open(&config, &flags)?;
        let mut registries = settings::registry(&config);
        registries.credentials = credentials.sources.clone();
        let registry = RegistryClient::new(registries)?;
        let userxattr = OverlayOptions::detect(storage.root()).userxattr;
        let opaque = if userxattr { OpaqueForm::User } else { OpaqueForm::Trusted };
        let connections =
            Arc::new(handover::connect(&flags.root, inherited, &settings::mount(&config, opaque))?);
        let metrics = Metrics::default();
        let parts = remote::Parts {
            root: flags.root.clone(),
            store: Arc::clone(&store),
            registry,
            connections: Arc::clone(&connections),
            metrics: metrics.clone(),
            snapshots: remote_snapshots,
            chains,
        };
        let remote = RemoteLayers::start(parts, &config).map_err(StartError::State)?;
        connections.serve()?;
        metrics.add_source(Arc::clone(&remote));
        metrics.add_source(Arc::clone(&connections));
        metrics.add_source(Arc::new(process));
        let prepare_timeout = config.prepare.deadline_sec.duration();
        let layers: Arc<dyn crate::lazy::LazyLayers> = remote.clone();
        let snapshots = Snapshots::new(storage, layers, SnapshotsConfig { prepare_timeout });
        let sockets = Sockets::bind(&flags, &config).await?;
        Ok(Self {
            flags,
            snapshots,
            remote,
            store,
            connections,
            metrics,
            sockets,
            images: credentials.images,
            sources: credentials.sources.into(),
            process,
            ignored: warnings,
            no_prometheus: config.no_prometheus,
            lock,
        })
    }

    /// Serves until `stop` is ready, then ends in good order.
    ///
    /// # Errors
    /// A listener failed.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let (tell, told) = watch::channel(());
        let metrics = (!self.no_prometheus).then(|| self.metrics.clone());
        let kubelet_apart = self.sockets.images.is_some();
        let reporter = self.reporter();
        let remote = Arc::clone(&self.remote);
        let profiler: admin::Profiler = Arc::new(move |image| remote.image_profile(image));
        let admin = admin::serve(
            self.sockets.admin,
            reporter,
            profiler,
            self.remote.clone(),
            self.sources,
            metrics.clone(),
            until(told.clone()),
        );
        let mut tasks = JoinSet::new();
        let mut beside = self.images;
        if let (Some(listener), Some(images)) = (self.sockets.images, beside.take_if(|_| kubelet_apart)) {
            let kubelet = server::serve_images(listener, images, self.metrics.clone(), until(told.clone()));
            tasks.spawn(async move { kubelet.await.map_err(ServeError::Kubelet) });
        }
        let (snapshots, counted) = (self.snapshots, self.metrics.clone());
        let containerd =
            server::serve(self.sockets.containerd, snapshots, beside, counted, until(told.clone()));
        tasks.spawn(async move { containerd.await.map_err(ServeError::Containerd) });
        tasks.spawn(async move { admin.await.map_err(ServeError::Admin) });
        if let (Some(listener), Some(metrics)) = (self.sockets.metrics, metrics) {
            let page = admin::serve_metrics(listener, metrics, until(told));
            tasks.spawn(async move { page.await.map_err(ServeError::Metrics) });
        }
        notify(NotifyState::Ready);
        tracing::info!(address = %self.flags.address.display(), version = crate::VERSION, "serving");
        let ended = tokio::select! {
            () = stop => Ok(()),
            Some(ended) = tasks.join_next() => ended.map_err(|error| ServeError::Panicked(crash::told(&error))).and_then(|result| result),
        };
        notify(NotifyState::Stopping);
        tracing::info!("stopping");
        drop(tell);
        let finish = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_CALLS, finish).await.is_err() {
            tracing::warn!("calls that did not end in time are cut off");
        }
        self.remote.flush();
        let store = self.store;
        // Nothing is left to do about a flush that failed: what it held is fetched again.
        let _ = tokio::task::spawn_blocking(move || store.flush()).await;
        handover::leave(&self.connections);
        ended
    }

    fn reporter(&self) -> Reporter {
        let (flags, remote, process) = (self.flags.clone(), Arc::clone(&self.remote), self.process);
        let ignored: Vec<_> =
            self.ignored.iter().map(|warning| format!("{}: {}", warning.key, warning.why)).collect();
        Arc::new(move || {
            let memory = process.memory();
            Status {
                version: crate::VERSION.to_owned(),
                pid: std::process::id(),
                uptime_seconds: process.uptime(),
                root: flags.root.clone(),
                address: flags.address.clone(),
                memory: MemoryStatus { resident_bytes: memory.resident, anonymous_bytes: memory.anonymous },
                cache: remote.cache_status(),
                layers: remote.layer_statuses(),
                images: remote.image_statuses(),
                registries: remote.registry_statuses(),
                hosts: remote.hosts_statuses(),
                ignored_configuration: ignored.clone(),
            }
        })
    }
}

// === impl Sockets ===

impl Sockets {
    async fn bind(flags: &Flags, config: &Config) -> Result<Self, StartError> {
        let beside = || flags.address.parent().unwrap_or("".as_ref()).join(admin::SOCKET_NAME);
        let admin = config.admin.address.clone().unwrap_or_else(beside);
        let metrics = match config.metrics_address.as_str() {
            "" => None,
            _ if config.no_prometheus => None,
            address => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| StartError::MetricsAddress { address: address.to_owned(), source })?,
            ),
        };
        let cri = &config.cri_keychain;
        let kubelet = cri.listen_path.as_deref().filter(|path| cri.enable_keychain && *path != flags.address);
        let images = kubelet.map(server::bind).transpose()?;
        Ok(Self { admin: server::bind(&admin)?, images, metrics, containerd: server::bind(&flags.address)? })
    }
}

async fn until(mut told: watch::Receiver<()>) {
    // The sender says nothing: it goes away.
    let _ = told.changed().await;
}

/// Outside systemd there is nobody to tell.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}

/// Each layer keeps files open, and each waiting request a socket.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
