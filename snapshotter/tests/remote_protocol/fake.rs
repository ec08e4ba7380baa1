//! A daemon in this process: the real service on a unix socket, layers that are made up, and a real client.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proto::{
    snapshots::{
        CommitSnapshotRequest, Info, ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
        snapshots_client::SnapshotsClient,
    },
    types::Mount,
};
use snapshotter::{
    lazy::{
        Absence, Chain, FallBack, FallBackReason, LazyLayers, Leftovers, Owner, RemoteLayer, RemoteRequest,
        Unavailable, Usage,
    },
    metrics::Metrics,
    server,
    snapshots::{Snapshots, SnapshotsConfig, Storage, TARGET_LABEL},
};
use store::LayerKey;
use tempfile::TempDir;
use tokio::{net::UnixStream, sync::Notify, task::JoinHandle};
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

/// The target whose opening panics.
pub(crate) const PANICS: &str = "sha256:panics";

/// Layers that exist because a test says so, by target.
#[derive(Default)]
pub(crate) struct FakeLayers {
    /// What there is; a target that is not in it falls back.
    pub(crate) known: Mutex<BTreeMap<String, RemoteLayer>>,
    /// Prepares wait for this while it is there.
    pub(crate) gate: Mutex<Option<Arc<Notify>>>,
    /// Targets of the Prepares that came here.
    pub(crate) asked: Mutex<Vec<String>>,
    /// What each cleanup was told is in use.
    pub(crate) cleanups: Mutex<Vec<BTreeSet<LayerKey>>>,
    /// How Prepares ended: the target, and why it fell back if it did.
    pub(crate) ended: Mutex<Vec<(String, Option<FallBackReason>)>>,
    /// Nothing is attached.
    pub(crate) detached: AtomicBool,
}

/// The daemon and a client of it.
pub(crate) struct Daemon {
    pub(crate) layers: Arc<FakeLayers>,
    pub(crate) client: SnapshotsClient<Channel>,
    pub(crate) root: TempDir,
    server: JoinHandle<()>,
    stop: Arc<Notify>,
    config: SnapshotsConfig,
}

// === impl FakeLayers ===

impl FakeLayers {
    /// Makes the layer for `target` one that can be lazy.
    pub(crate) fn add(&self, target: &str, number: u32) -> RemoteLayer {
        let layer = layer(number);
        self.known.lock().insert(target.into(), layer);
        layer
    }
}

pub(crate) fn layer(number: u32) -> RemoteLayer {
    let digest = |what: &str| estargz::Digest::of(format!("{what} {number}").as_bytes());
    RemoteLayer {
        key: LayerKey { blob: digest("blob"), toc: digest("toc") },
        slot: fusefs::Slot::new(number).unwrap(),
    }
}

pub(crate) fn lower_dir(layer: &RemoteLayer) -> PathBuf {
    PathBuf::from(format!("/l/{}", layer.slot))
}

#[async_trait]
impl LazyLayers for FakeLayers {
    async fn prepare(&self, request: RemoteRequest<'_>) -> Result<RemoteLayer, FallBack> {
        self.asked.lock().push(request.target.into());
        let gate = self.gate.lock().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        assert_ne!(request.target, PANICS, "as the test wants it");
        let known = self.known.lock().get(request.target).copied();
        known.ok_or(FallBack { reason: "no such layer".into(), code: FallBackReason::NotFound })
    }

    fn prepared(&self, request: RemoteRequest<'_>, _: &RemoteLayer) {
        self.ended.lock().push((request.target.into(), None));
    }

    fn fell_back(&self, request: RemoteRequest<'_>, fall_back: &FallBack) {
        self.ended.lock().push((request.target.into(), Some(fall_back.code)));
    }

    fn lower_dir(&self, layer: &RemoteLayer, _: Absence) -> Result<PathBuf, Unavailable> {
        match self.detached.load(Ordering::SeqCst) {
            true => Err(Unavailable { key: layer.key, reason: "detached by the test".into() }),
            false => Ok(lower_dir(layer)),
        }
    }

    fn root_owner(&self, _: &RemoteLayer) -> Result<Owner, Unavailable> {
        Ok(Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() })
    }

    fn usage(&self, layer: &RemoteLayer) -> Usage {
        Usage { size: 1000 + u64::from(layer.slot.get()), inodes: 4 }
    }

    fn chain_dir(&self, chain: &Chain, _: Absence) -> Result<PathBuf, Unavailable> {
        Ok(format!("/l/{}", chain.slot).into())
    }

    async fn cleanup(&self, _: &BTreeSet<fusefs::Slot>, in_use: &BTreeSet<LayerKey>) -> Leftovers {
        self.cleanups.lock().push(in_use.clone());
        Box::new(|| {})
    }
}

// === impl Daemon ===

impl Daemon {
    pub(crate) async fn start() -> Self {
        Self::start_with(SnapshotsConfig::default()).await
    }

    pub(crate) async fn start_with(config: SnapshotsConfig) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (layers, stop) = (Arc::new(FakeLayers::default()), Arc::new(Notify::new()));
        let (server, client) = serve(&root, &layers, &stop, &config).await;
        Self { layers, client, root, server, stop, config }
    }

    /// Stops the daemon and starts it on what it left, with layers that know nothing any more.
    pub(crate) async fn restart(&mut self) {
        self.client = SnapshotsClient::new(Endpoint::from_static("http://nowhere").connect_lazy());
        self.stop().await;
        self.layers = Arc::new(FakeLayers::default());
        (self.server, self.client) = serve(&self.root, &self.layers, &self.stop, &self.config).await;
    }

    /// Tells the daemon to end, and waits for that.
    pub(crate) async fn stop(&mut self) {
        self.stop.notify_one();
        (&mut self.server).await.unwrap();
    }

    pub(crate) async fn prepare(
        &self,
        key: &str,
        parent: &str,
        labels: &[(&str, &str)],
    ) -> Result<Vec<Mount>, Status> {
        let request = PrepareSnapshotRequest {
            snapshotter: "starling".into(),
            key: key.into(),
            parent: parent.into(),
            labels: map(labels),
        };
        Ok(self.client.clone().prepare(request).await?.into_inner().mounts)
    }

    /// Prepares as containerd's unpacker does, and expects that there is nothing to unpack.
    pub(crate) async fn pull(&self, key: &str, parent: &str, target: &str) -> Info {
        let status = self.prepare(key, parent, &[(TARGET_LABEL, target)]).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::AlreadyExists);
        assert_eq!(status.message(), format!("target snapshot {target:?}: already exists"));
        self.look_up(target, parent).await
    }

    /// Looks for what containerd looks for after an `AlreadyExists` (`core/metadata/snapshot.go`).
    pub(crate) async fn look_up(&self, target: &str, parent: &str) -> Info {
        let filter = format!("labels.{TARGET_LABEL:?}=={target},parent=={parent:?}");
        let mut found = self.list(&[&filter]).await;
        assert_eq!(found.len(), 1, "{filter}: {found:?}");
        let info = found.remove(0);
        assert_eq!(info.kind(), proto::snapshots::Kind::Committed);
        assert_eq!((info.labels[TARGET_LABEL].as_str(), info.parent.as_str()), (target, parent));
        info
    }

    pub(crate) async fn commit(&self, name: &str, key: &str, labels: &[(&str, &str)]) -> Result<(), Status> {
        let request = CommitSnapshotRequest {
            name: name.into(),
            key: key.into(),
            labels: map(labels),
            ..CommitSnapshotRequest::default()
        };
        self.client.clone().commit(request).await.map(drop)
    }

    pub(crate) async fn remove(&self, key: &str) -> Result<(), Status> {
        let request = RemoveSnapshotRequest { key: key.into(), ..RemoveSnapshotRequest::default() };
        self.client.clone().remove(request).await.map(drop)
    }

    pub(crate) async fn cleanup(&self) {
        self.client.clone().cleanup(proto::snapshots::CleanupRequest::default()).await.unwrap();
    }

    pub(crate) async fn list(&self, filters: &[&str]) -> Vec<Info> {
        self.list_messages(filters).await.into_iter().flatten().collect()
    }

    pub(crate) async fn list_messages(&self, filters: &[&str]) -> Vec<Vec<Info>> {
        let filters = filters.iter().map(|filter| filter.to_string()).collect();
        let request = ListSnapshotsRequest { filters, ..ListSnapshotsRequest::default() };
        let mut stream = self.client.clone().list(request).await.unwrap().into_inner();
        let mut messages = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            messages.push(message.info);
        }
        messages
    }

    /// The names of the directories that there are for snapshots.
    pub(crate) fn directories(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.path().join("snapshotter/snapshots")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

async fn serve(
    root: &TempDir,
    layers: &Arc<FakeLayers>,
    stop: &Arc<Notify>,
    config: &SnapshotsConfig,
) -> (JoinHandle<()>, SnapshotsClient<Channel>) {
    let storage = Storage::open(&root.path().join("snapshotter")).unwrap();
    let snapshots = Snapshots::new(storage, Arc::clone(layers) as Arc<dyn LazyLayers>, config.clone());
    let address = root.path().join("s.sock");
    let listener = server::bind(&address).unwrap();
    let stop = Arc::clone(stop);
    let server = tokio::spawn(async move {
        server::serve(listener, snapshots, None, Metrics::default(), async move { stop.notified().await })
            .await
            .unwrap();
    });
    let connect = move |_: Uri| {
        let address = address.clone();
        async move { UnixStream::connect(address).await.map(TokioIo::new) }
    };
    let endpoint = Endpoint::from_static("http://socket");
    let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await.unwrap();
    let client = SnapshotsClient::new(channel).max_decoding_message_size(16 << 20);
    (server, client)
}

pub(crate) fn map(labels: &[(&str, &str)]) -> HashMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within five seconds");
}
