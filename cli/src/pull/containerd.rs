//! containerd by gRPC, as far as a pull needs it. Every call is made in one namespace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use estargz::Digest;
use hyper_util::rt::TokioIo;
use proto::{
    content::{InfoRequest, ReadContentRequest, content_client::ContentClient},
    images::{GetImageRequest, images_client::ImagesClient},
    introspection::{Plugin, PluginsRequest, introspection_client::IntrospectionClient},
    snapshots::{StatSnapshotRequest, snapshots_client::SnapshotsClient},
    types::Descriptor,
};
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};

/// The header with the namespace (containerd `pkg/namespaces/grpc.go`).
const NAMESPACE_HEADER: &str = "containerd-namespace";
/// Larger documents are refused; registries are asked to take manifests of 4 MiB, configurations are smaller.
const MAX_DOCUMENT: usize = 8 << 20;

/// A channel whose calls name the namespace.
pub(super) type NamedChannel = InterceptedService<Channel, Namespace>;

/// Puts the namespace into each call.
#[derive(Debug, Clone)]
pub(super) struct Namespace(MetadataValue<Ascii>);

/// A containerd.
#[derive(Debug, Clone)]
pub(crate) struct Containerd {
    channel: NamedChannel,
}

// === impl Namespace ===

impl Interceptor for Namespace {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(NAMESPACE_HEADER, self.0.clone());
        Ok(request)
    }
}

// === impl Containerd ===

impl Containerd {
    pub(crate) async fn connect(address: &Path, namespace: &str) -> Result<Self> {
        let namespace = namespace.parse().map_err(|_| anyhow!("{namespace:?} is not a namespace"))?;
        let path: PathBuf = address.strip_prefix("unix:/").unwrap_or(address).to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The name is not looked up: there is only the socket.
        let channel = Endpoint::from_static("http://containerd").connect_with_connector(connect).await;
        let channel = channel.with_context(|| {
            format!("cannot reach containerd on {}: is it running, and are you root?", address.display())
        })?;
        Ok(Self { channel: InterceptedService::new(channel, Namespace(namespace)) })
    }

    pub(super) fn channel(&self) -> NamedChannel {
        self.channel.clone()
    }

    /// The plugins of `kind`.
    pub(crate) async fn plugins(&self, kind: &str) -> Result<Vec<Plugin>> {
        let request = PluginsRequest { filters: vec![format!("type=={kind:?}")] };
        let answer = IntrospectionClient::new(self.channel()).plugins(request).await;
        Ok(answer.map_err(said)?.into_inner().plugins)
    }

    /// What the image `name` points to.
    pub(super) async fn image(&self, name: &str) -> Result<Descriptor> {
        let request = GetImageRequest { name: name.to_owned() };
        let answer = ImagesClient::new(self.channel()).get(request).await.map_err(said)?;
        let target = answer.into_inner().image.and_then(|image| image.target);
        target.with_context(|| format!("containerd's image {name} has no target"))
    }

    /// A small blob of the content store, checked against its digest.
    pub(super) async fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let request = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let answer = ContentClient::new(self.channel()).read(request).await.map_err(said)?;
        let (mut pieces, mut bytes) = (answer.into_inner(), Vec::new());
        while let Some(piece) = pieces.message().await.map_err(said)? {
            bytes.extend_from_slice(&piece.data);
            ensure!(bytes.len() <= MAX_DOCUMENT, "{digest} is too large for a document");
        }
        ensure!(Digest::of(&bytes) == *digest, "containerd's copy of {digest} is damaged");
        Ok(bytes)
    }

    /// Whether the content store has a blob.
    pub(super) async fn has_content(&self, digest: &Digest) -> Result<bool> {
        let request = InfoRequest { digest: digest.to_string() };
        found(ContentClient::new(self.channel()).info(request).await).map(|answer| answer.is_some())
    }

    /// The labels of a snapshot; none if there is no such snapshot.
    pub(super) async fn snapshot_labels(
        &self,
        snapshotter: &str,
        key: &str,
    ) -> Result<Option<std::collections::HashMap<String, String>>> {
        let request = StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let answer = found(SnapshotsClient::new(self.channel()).stat(request).await)?;
        Ok(answer.map(|answer| answer.info.unwrap_or_default().labels))
    }
}

fn found<T>(answer: Result<tonic::Response<T>, Status>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(said(status)),
    }
}

/// An error of containerd's as people read it: the message without the protocol around it.
pub(super) fn said(status: Status) -> anyhow::Error {
    match status.code() {
        Code::Unavailable => anyhow!("lost the connection to containerd: {}", status.message()),
        _ => anyhow!("containerd: {}", status.message()),
    }
}
