//! Profiles in registries, for commands.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use estargz::Digest;
use registry::{ImageSource, Platform, Reference, RegistryClient, RegistryConfig};
use snapshotter::profile::{self, Document};
use tokio::runtime::{Builder, Runtime};

use crate::convert::TOC_DIGEST;

/// A registry client with a runtime to run it on.
#[derive(Debug)]
pub(crate) struct Remote {
    runtime: Runtime,
    client: Arc<RegistryClient>,
}

/// The profile that `name` means: a file, else an image that has one in its registry.
pub(crate) fn find(name: &str, platform: Option<Platform>, insecure: &[String]) -> Result<Document> {
    if Path::new(name).is_file() {
        return super::read(Path::new(name));
    }
    let reference: Reference =
        name.parse().with_context(|| format!("{name} is neither a file nor the name of an image"))?;
    match Remote::new(insecure)?.pull(&reference, platform)? {
        Some(document) => Ok(document),
        None => bail!("{reference} has no profile in its registry"),
    }
}

// === impl Remote ===

impl Remote {
    pub(crate) fn new(insecure: &[String]) -> Result<Self> {
        let mut config = RegistryConfig::default();
        for host in insecure {
            config = config.with_insecure_host(host);
        }
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { runtime, client: RegistryClient::new(config)? })
    }

    /// The profile of an image in its registry, checked against the image.
    pub(crate) fn pull(&self, reference: &Reference, platform: Option<Platform>) -> Result<Option<Document>> {
        let platform = platform.unwrap_or_else(Platform::current);
        let image = self.client.image(reference.clone());
        let found = self.runtime.block_on(async {
            let (fetched, manifest) = image.platform_manifest(&platform).await?;
            let toc = |annotation: &String| annotation.parse().ok();
            let layers: Vec<(Digest, Option<Digest>)> = manifest
                .layers
                .iter()
                .map(|layer| (layer.digest, layer.annotations.get(TOC_DIGEST).and_then(toc)))
                .collect();
            Ok(profile::pull(&self.client, reference, fetched.digest, &layers).await?)
        });
        found.map_err(|error: anyhow::Error| error.context(format!("cannot read the profile of {reference}")))
    }

    /// Pushes a profile to the repository of its image.
    pub(crate) fn push(&self, reference: &Reference, document: &Document) -> Result<Digest> {
        self.runtime
            .block_on(profile::push(&self.client, reference, document))
            .with_context(|| format!("cannot push the profile of {reference}"))
    }
}
