//! Serves ordinary snapshots only: each layer that could be lazy falls back. It shows what the state machine needs around
//! it, and lets containerd's test suite run without a registry, FUSE or a configuration.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use clap::Parser;
use snapshotter::{
    lazy::{FallBack, FallBackReason, LazyLayers, Owner, RemoteLayer, RemoteRequest, Unavailable, Usage},
    lock::RootLock,
    metrics::Metrics,
    server,
    snapshots::{Snapshots, SnapshotsConfig, Storage},
};
use store::LayerKey;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
struct Flags {
    /// The socket to listen on.
    #[arg(long)]
    address: PathBuf,
    /// Where snapshots are kept.
    #[arg(long)]
    root: PathBuf,
}

struct NoLayers;

#[async_trait]
impl LazyLayers for NoLayers {
    async fn prepare(&self, _: RemoteRequest<'_>) -> Result<RemoteLayer, FallBack> {
        Err(FallBack { reason: "this daemon serves no layer lazily".into(), code: FallBackReason::Disabled })
    }

    fn lower_dir(&self, layer: &RemoteLayer) -> Result<PathBuf, Unavailable> {
        Err(unavailable(layer))
    }

    fn root_owner(&self, layer: &RemoteLayer) -> Result<Owner, Unavailable> {
        Err(unavailable(layer))
    }

    fn usage(&self, _: &RemoteLayer) -> Usage {
        Usage::default()
    }

    async fn cleanup(&self, _: &BTreeSet<LayerKey>) {}
}

fn unavailable(layer: &RemoteLayer) -> Unavailable {
    Unavailable { key: layer.key, reason: "this daemon serves no layer lazily".into() }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    let flags = Flags::parse();
    let _lock = RootLock::take(&flags.root)?;
    let storage = Storage::open(&flags.root.join("snapshotter"))?;
    let snapshots = Snapshots::new(storage, Arc::new(NoLayers), SnapshotsConfig::default());
    let listener = server::bind(&flags.address)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        terminate.recv().await;
    };
    Ok(server::serve(listener, snapshots, Metrics::default(), stop).await?)
}
