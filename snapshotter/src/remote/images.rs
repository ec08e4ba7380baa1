//! Manifests and configurations of images, each fetched once, checked against its digest and kept.
//!
//! `images/<manifest digest>/` holds `manifest.json` and `config.json` to the byte. A manifest tells every layer's size
//! and the digest of its table of contents before containerd asks for the layer. Nobody waits for a configuration.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use estargz::Digest;
use registry::{Reference, RegistryClient};
use store::SourceError;

use super::{
    flights::{self, Flights, Linger, launch},
    manifest::{MOST_BYTES, Manifest},
    reasons,
};
use crate::lazy::{FallBack, FallBackReason};

/// The manifest, now or soon.
pub(super) type Flight = flights::Flight<Result<Arc<Manifest>, FallBack>>;

/// How long a failure is remembered, so that the layers of one pull do not all ask again.
const FAILURE_LIFETIME: Duration = Duration::from_secs(10);
/// How long a configuration is waited for that is being fetched.
const CONFIG_PATIENCE: Duration = Duration::from_secs(10);
/// Manifests that are kept in memory; the others are on disk.
const MOST_IN_MEMORY: usize = 256;

/// All images that were pulled.
pub(super) struct Images {
    directory: PathBuf,
    registry: Arc<RegistryClient>,
    flights: Flights<Digest, Result<Arc<Manifest>, FallBack>>,
}

// === impl Images ===

impl Images {
    /// Keeps documents below `directory`.
    pub(super) fn new(directory: PathBuf, registry: Arc<RegistryClient>) -> Arc<Self> {
        Arc::new(Self { directory, registry, flights: Flights::default() })
    }

    /// The manifest `digest` of the repository of `reference`. The first call fetches it, unless it is on disk.
    pub(super) fn manifest(self: &Arc<Self>, reference: &Reference, digest: Digest) -> Flight {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&digest) {
            return flight.clone();
        }
        if flights.len() >= MOST_IN_MEMORY {
            flights.retain(|_, flight| flight.peek().is_none());
        }
        let (images, reference) = (Arc::clone(self), reference.clone());
        let obtained = async move { images.obtain(&reference, digest).await };
        launch(&self.flights, &mut flights, digest, obtained, |obtained| match obtained {
            Ok(_) => Linger::Always,
            Err(_) => Linger::For(FAILURE_LIFETIME),
        })
    }

    /// The manifest `digest`, if it is on disk.
    pub(super) fn kept(&self, digest: Digest) -> Option<Manifest> {
        let bytes = read_checked(&self.path(digest).join("manifest.json"), digest)?;
        Manifest::parse(&bytes).ok()
    }

    /// The configuration of the image `digest`, soon after its manifest was asked for.
    pub(super) async fn config(self: &Arc<Self>, digest: Digest, config: Digest) -> Option<Vec<u8>> {
        let path = self.path(digest).join("config.json");
        let began = std::time::Instant::now();
        loop {
            let path = path.clone();
            let read = blocking(move || read_checked(&path, config)).await;
            // It is fetched already; nobody waits for this.
            if read.is_some() || began.elapsed() > CONFIG_PATIENCE {
                return read;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Deletes the documents of images none of whose layers is in `blobs`.
    pub(super) fn forget_unused(&self, blobs: &BTreeSet<Digest>) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let layers =
                fs::read(path.join("manifest.json")).ok().and_then(|bytes| Manifest::parse(&bytes).ok());
            let in_use = layers
                .is_some_and(|manifest| manifest.layers.iter().any(|layer| blobs.contains(&layer.blob)));
            if !in_use {
                fs::remove_dir_all(&path)?;
            }
        }
        self.flights.lock().retain(|digest, flight| flight.peek().is_none() || self.path(*digest).exists());
        Ok(())
    }

    async fn obtain(
        self: &Arc<Self>,
        reference: &Reference,
        digest: Digest,
    ) -> Result<Arc<Manifest>, FallBack> {
        let directory = self.path(digest);
        let kept = directory.join("manifest.json");
        let there = blocking(move || read_checked(&kept, digest)).await;
        let bytes = match there {
            Some(bytes) => bytes,
            None => {
                let fetched = self.registry.manifest(&reference.with_digest(digest)).await;
                let bytes =
                    fetched.map_err(|error| reasons::source("the image's manifest", &error))?.bytes.to_vec();
                let (directory, copy) = (directory.clone(), bytes.clone());
                blocking(move || keep(&directory, "manifest.json", &copy)).await;
                bytes
            }
        };
        let manifest = Manifest::parse(&bytes).map_err(|error| FallBack {
            reason: format!("the image's manifest {digest} cannot be read: {error}"),
            code: FallBackReason::NoTocDigest,
        })?;
        if let Some(config) = manifest.config {
            let (images, reference) = (Arc::clone(self), reference.clone());
            tokio::spawn(async move {
                if let Err(error) = images.obtain_config(&reference, directory, config).await {
                    tracing::debug!(error = error.message, "cannot fetch an image's configuration");
                }
            });
        }
        Ok(Arc::new(manifest))
    }

    async fn obtain_config(
        &self,
        reference: &Reference,
        directory: PathBuf,
        config: Digest,
    ) -> Result<(), SourceError> {
        let kept = directory.join("config.json");
        if blocking(move || read_checked(&kept, config)).await.is_some() {
            return Ok(());
        }
        let bytes = self.registry.fetch_blob(reference, &config, MOST_BYTES).await?;
        blocking(move || keep(&directory, "config.json", &bytes)).await;
        Ok(())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }
}

fn read_checked(path: &Path, digest: Digest) -> Option<Vec<u8>> {
    fs::read(path).ok().filter(|bytes| Digest::of(bytes) == digest)
}

/// Without the copy on disk the document is fetched again after a restart, no more.
fn keep(directory: &Path, name: &str, bytes: &[u8]) {
    let new = directory.join(format!("{name}.new"));
    let written = fs::create_dir_all(directory)
        .and_then(|()| fs::write(&new, bytes))
        .and_then(|()| fs::rename(&new, directory.join(name)));
    if let Err(error) = written {
        tracing::warn!(path = %directory.display(), %error, "cannot keep a document of an image");
    }
}

/// Runs `work` where it may block.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("directory", &self.directory).finish_non_exhaustive()
    }
}
