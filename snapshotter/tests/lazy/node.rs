//! A machine: a registry, a daemon of its own process, and containerd's half of a pull.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use proto::{
    snapshots::{
        CleanupRequest, Info, ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
        UsageRequest, ViewSnapshotRequest, snapshots_client::SnapshotsClient,
    },
    types::Mount,
};
use snapshotter::admin::{LayerStatus, OutcomeStatus, Status, ask_metrics, ask_status};
use tempfile::TempDir;
use testkit::peers::starlingd::Starlingd;
use tokio::net::UnixStream;
use tonic::{
    Code,
    transport::{Channel, Endpoint, Uri},
};

use super::image::{Image, Labels, Layer};

const PROGRAM: &str = env!("CARGO_BIN_EXE_starlingd");

/// Nothing is fetched but what is asked for.
pub(crate) const ON_DEMAND: &str = "noprefetch = true\nno_background_fetch = true\n";

/// The daemon and its client.
pub(crate) struct Node {
    pub(crate) directory: TempDir,
    pub(crate) daemon: Starlingd,
    client: SnapshotsClient<Channel>,
    config: String,
    mounted: Vec<PathBuf>,
}

/// What Prepare answered.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// `AlreadyExists`, and the committed snapshot by its name.
    Lazy(String),
    /// Mounts to unpack into.
    Ordinary(Vec<Mount>),
}

// === impl Node ===

impl Node {
    pub(crate) async fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let daemon = Starlingd::start(Path::new(PROGRAM), directory.path(), config).unwrap();
        let client = connect(daemon.address()).await;
        Self { directory, daemon, client, config: config.to_owned(), mounted: Vec::new() }
    }

    /// Ends the daemon by `signal` and starts another one on the same root.
    pub(crate) async fn restart(&mut self, signal: Signal) {
        let status = self.daemon.end(signal).unwrap();
        assert!(signal == Signal::SIGKILL || status.code() == Some(0), "{status}");
        self.daemon = Starlingd::start(Path::new(PROGRAM), self.directory.path(), &self.config).unwrap();
        self.client = connect(self.daemon.address()).await;
    }

    /// One layer of a pull: Prepare, and if that says that the layer is there, the look-up that follows.
    pub(crate) async fn prepare(&mut self, labels: &Labels, parent: &str) -> Prepared {
        let target = labels["containerd.io/snapshot.ref"].clone();
        let request = PrepareSnapshotRequest {
            snapshotter: "starling".to_owned(),
            key: format!("extract-{target}-{parent}"),
            parent: parent.to_owned(),
            labels: labels.clone(),
        };
        match self.client.prepare(request).await {
            Ok(answer) => Prepared::Ordinary(answer.into_inner().mounts),
            Err(status) => {
                assert_eq!(status.code(), Code::AlreadyExists, "{status}");
                let found = self.list(&format!("labels.\"containerd.io/snapshot.ref\"=={target}")).await;
                let mut found = found.into_iter().filter(|info| info.parent == parent);
                Prepared::Lazy(found.next().expect("the snapshot that Prepare said is there").name)
            }
        }
    }

    /// Pulls the whole image, which must be lazy; the names of its snapshots.
    pub(crate) async fn pull(&mut self, image: &Image) -> Vec<String> {
        let labels: Vec<_> = (0..image.layers.len()).map(|n| image.containerd_labels(n)).collect();
        self.pull_with(&labels).await
    }

    pub(crate) async fn pull_with(&mut self, labels: &[Labels]) -> Vec<String> {
        let mut names = Vec::<String>::new();
        for labels in labels {
            let parent = names.last().cloned().unwrap_or_default();
            match self.prepare(labels, &parent).await {
                Prepared::Lazy(name) => names.push(name),
                Prepared::Ordinary(_) => panic!("a layer fell back: {}", self.daemon.log()),
            }
        }
        names
    }

    pub(crate) async fn list(&mut self, filter: &str) -> Vec<Info> {
        let filters = if filter.is_empty() { Vec::new() } else { vec![filter.to_owned()] };
        let request = ListSnapshotsRequest { filters, ..Default::default() };
        let mut stream = self.client.list(request).await.unwrap().into_inner();
        let mut infos = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            infos.extend(part.info);
        }
        infos
    }

    pub(crate) async fn view(&mut self, key: &str, parent: &str) -> Vec<Mount> {
        let request =
            ViewSnapshotRequest { key: key.to_owned(), parent: parent.to_owned(), ..Default::default() };
        self.client.view(request).await.unwrap().into_inner().mounts
    }

    /// Mounts a view of `parent` as a container's root; unmounted with the node.
    pub(crate) async fn mount(&mut self, key: &str, parent: &str) -> PathBuf {
        let mounts = self.view(key, parent).await;
        let [mount] = mounts.as_slice() else { panic!("{mounts:?}") };
        let target = self.directory.path().join(key);
        fs::create_dir(&target).unwrap();
        let options = mount.options.join(",");
        let (source, kind) = (mount.source.as_str(), mount.r#type.as_str());
        nix::mount::mount(
            Some(source),
            &target,
            Some(kind),
            nix::mount::MsFlags::MS_RDONLY,
            Some(options.as_str()),
        )
        .unwrap();
        self.mounted.push(target.clone());
        target
    }

    pub(crate) async fn remove(&mut self, key: &str) {
        let request = RemoveSnapshotRequest { key: key.to_owned(), ..Default::default() };
        self.client.remove(request).await.unwrap();
    }

    pub(crate) async fn cleanup(&mut self) {
        self.client.cleanup(CleanupRequest::default()).await.unwrap();
    }

    pub(crate) async fn usage(&mut self, key: &str) -> i64 {
        let request = UsageRequest { key: key.to_owned(), ..Default::default() };
        self.client.usage(request).await.unwrap().into_inner().size
    }

    pub(crate) fn status(&self) -> Status {
        ask_status(&self.daemon.admin()).unwrap()
    }

    pub(crate) fn metrics(&self) -> String {
        ask_metrics(&self.daemon.admin()).unwrap()
    }

    /// What the daemon says of `layer`.
    pub(crate) fn layer(&self, layer: &Layer) -> Option<LayerStatus> {
        let toc = layer.toc.to_string();
        self.status().layers.into_iter().find(|status| status.toc == toc)
    }

    /// Where `layer` is shown.
    pub(crate) fn path(&self, layer: &Layer) -> PathBuf {
        let slot = self.layer(layer).and_then(|status| status.slot).expect("the layer has a slot");
        self.daemon.root().join("snapshotter/l").join(slot.to_string())
    }

    /// Reads all files of `layer` through the mount.
    pub(crate) fn read(&self, layer: &Layer) -> BTreeMap<String, Vec<u8>> {
        let root = self.path(layer);
        layer.files.keys().map(|path| (path.clone(), fs::read(root.join(path)).unwrap())).collect()
    }

    /// The code and reason for which the image's layer `n` fell back, as the daemon tells them.
    pub(crate) fn reason(&self, image: &Image, n: usize) -> Option<(String, String)> {
        let blob = image.layers[n].blob.to_string();
        let images = self.status().images;
        let known = images.into_iter().find(|status| status.reference == image.reference)?;
        match known.layers.into_iter().find(|layer| layer.blob == blob)?.outcome {
            OutcomeStatus::FellBack { code, reason } => Some((code, reason)),
            OutcomeStatus::Lazy { .. } => None,
        }
    }

    /// What `starling explain` says of the image, if that program is there.
    pub(crate) fn explain(&self, image: &Image) -> Option<String> {
        let program = Path::new(PROGRAM).with_file_name("starling");
        if !program.exists() {
            return None;
        }
        let mut command = Command::new(program);
        command.arg("explain").arg("--admin").arg(self.daemon.admin()).arg(&image.reference);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    }

    /// Waits until `condition` holds.
    pub(crate) async fn eventually(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{what}: {:#?}\n{}",
                self.status(),
                self.daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for target in &self.mounted {
            // A test that failed half-way has less to unmount.
            let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

async fn connect(address: PathBuf) -> SnapshotsClient<Channel> {
    let connect = move |_: Uri| {
        let address = address.clone();
        async move { UnixStream::connect(address).await.map(TokioIo::new) }
    };
    let endpoint = Endpoint::from_static("http://socket");
    SnapshotsClient::new(endpoint.connect_with_connector(tower::service_fn(connect)).await.unwrap())
}
