//! containerd's half: what it asks a snapshotter, and what it mounts.

use std::{fs, path::Path};

use hyper_util::rt::TokioIo;
use proto::{
    snapshots::{
        CleanupRequest, Info, ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
        UsageRequest, ViewSnapshotRequest, snapshots_client::SnapshotsClient,
    },
    types::Mount,
};
use tokio::net::UnixStream;
use tonic::{
    Code,
    transport::{Channel, Endpoint, Error, Uri},
};

use super::image::{Image, Labels};

/// A client of a daemon; its copies share a connection, as containerd's calls do.
#[derive(Clone)]
pub(crate) struct Client(SnapshotsClient<Channel>);

/// What Prepare answered.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// `AlreadyExists`, and the committed snapshot by its name.
    Lazy(String),
    /// Mounts to unpack into.
    Ordinary(Vec<Mount>),
}

// === impl Client ===

impl Client {
    pub(crate) async fn connect(address: &Path) -> Result<Self, Error> {
        let address = address.to_owned();
        let connect = move |_: Uri| {
            let address = address.clone();
            async move { UnixStream::connect(address).await.map(TokioIo::new) }
        };
        let endpoint = Endpoint::from_static("http://socket");
        let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await?;
        Ok(Self(SnapshotsClient::new(channel)))
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
        match self.0.prepare(request).await {
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
                Prepared::Ordinary(mounts) => panic!("a layer fell back: {mounts:?}"),
            }
        }
        names
    }

    pub(crate) async fn list(&mut self, filter: &str) -> Vec<Info> {
        let filters = if filter.is_empty() { Vec::new() } else { vec![filter.to_owned()] };
        let request = ListSnapshotsRequest { filters, ..Default::default() };
        let mut stream = self.0.list(request).await.unwrap().into_inner();
        let mut infos = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            infos.extend(part.info);
        }
        infos
    }

    pub(crate) async fn view(&mut self, key: &str, parent: &str) -> Vec<Mount> {
        let request =
            ViewSnapshotRequest { key: key.to_owned(), parent: parent.to_owned(), ..Default::default() };
        self.0.view(request).await.unwrap().into_inner().mounts
    }

    /// Mounts a view of `parent` on the new directory `target`, as a container's root.
    pub(crate) async fn mount(&mut self, key: &str, parent: &str, target: &Path) {
        let mounts = self.view(key, parent).await;
        let [mount] = mounts.as_slice() else { panic!("{mounts:?}") };
        fs::create_dir(target).unwrap();
        let options = mount.options.join(",");
        let (source, kind) = (mount.source.as_str(), mount.r#type.as_str());
        let mut flags = nix::mount::MsFlags::MS_RDONLY;
        let data = if kind == "bind" {
            flags |= nix::mount::MsFlags::MS_BIND | nix::mount::MsFlags::MS_REC;
            None
        } else {
            Some(options.as_str())
        };
        nix::mount::mount(Some(source), target, Some(kind), flags, data).unwrap();
    }

    pub(crate) async fn remove(&mut self, key: &str) {
        let request = RemoveSnapshotRequest { key: key.to_owned(), ..Default::default() };
        self.0.remove(request).await.unwrap();
    }

    pub(crate) async fn cleanup(&mut self) {
        self.0.cleanup(CleanupRequest::default()).await.unwrap();
    }

    pub(crate) async fn usage(&mut self, key: &str) -> i64 {
        let request = UsageRequest { key: key.to_owned(), ..Default::default() };
        self.0.usage(request).await.unwrap().into_inner().size
    }
}
