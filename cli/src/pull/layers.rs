//! What became of each layer of a pulled image.

use std::path::Path;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{SHA256, digest as hash};
use estargz::Digest;
use proto::types::Descriptor;
use registry::{Manifest, Parsed, Platform};
use serde::{Deserialize, Serialize};
use snapshotter::{
    admin::{OutcomeStatus, Status, ask_status},
    snapshots::REMOTE_LABEL,
};

use super::containerd::Containerd;
use crate::explain::meaning;

/// An index may lead to another index; deeper nesting has no use.
const MAX_NESTING: usize = 3;

/// One layer after the pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LayerOutcome {
    /// The blob's digest.
    pub(super) digest: Digest,
    /// The blob's size.
    pub(super) size: u64,
    /// Whether the snapshotter serves it lazily.
    pub(super) lazy: bool,
    /// Whether containerd has the whole blob.
    pub(super) downloaded: bool,
    /// The class of the reason why it is not lazy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<String>,
    /// Why it is not lazy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// The layers of the image that containerd has under `name`, the lowest first.
pub(super) async fn outcomes(
    containerd: &Containerd,
    name: &str,
    platform: &Platform,
    snapshotter: &str,
    admin: &Path,
) -> Result<Vec<LayerOutcome>> {
    let manifest = manifest(containerd, containerd.image(name).await?, platform).await?;
    let configuration = containerd.read(&manifest.config.digest).await?;
    let configuration: Configuration =
        serde_json::from_slice(&configuration).context("the image's configuration names no layers")?;
    let chain_ids = chain_ids(&configuration.rootfs.diff_ids);
    if chain_ids.len() != manifest.layers.len() {
        bail!("the image's manifest and configuration have different numbers of layers");
    }
    let mut outcomes = Vec::new();
    for (layer, chain_id) in manifest.layers.iter().zip(&chain_ids) {
        let labels = containerd.snapshot_labels(snapshotter, chain_id).await?;
        let labels =
            labels.with_context(|| format!("containerd has no snapshot of the layer {}", layer.digest))?;
        outcomes.push(LayerOutcome {
            digest: layer.digest,
            size: layer.size,
            lazy: labels.contains_key(REMOTE_LABEL),
            downloaded: containerd.has_content(&layer.digest).await?,
            code: None,
            reason: None,
            remedy: None,
        });
    }
    if outcomes.iter().any(|outcome| !outcome.lazy) {
        let admin = admin.to_owned();
        let status = tokio::task::spawn_blocking(move || ask_status(&admin).map_err(anyhow::Error::from));
        let status = status.await?;
        outcomes.iter_mut().for_each(|outcome| outcome.explain(name, &status));
    }
    Ok(outcomes)
}

/// The manifest for `platform` that `target` is or leads to.
async fn manifest(containerd: &Containerd, target: Descriptor, platform: &Platform) -> Result<Manifest> {
    let (mut digest, mut media_type) = (target.digest.parse::<Digest>()?, target.media_type);
    for _ in 0..MAX_NESTING {
        match Parsed::new(&containerd.read(&digest).await?, &media_type)? {
            Parsed::Manifest(manifest) => return Ok(manifest),
            Parsed::Index(index) => {
                let chosen = index.select(platform)?;
                (digest, media_type) = (chosen.digest, chosen.media_type.clone());
            }
        }
    }
    bail!("the image's indexes are nested too deeply")
}

/// The names of the layers' snapshots (OCI image-spec, "Layer ChainID").
fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Option<String> = None;
    let next = |diff_id: &String| {
        let id = match &chain {
            None => diff_id.clone(),
            Some(parent) => {
                let sum = hash(&SHA256, format!("{parent} {diff_id}").as_bytes());
                let digits: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                format!("sha256:{digits}")
            }
        };
        chain = Some(id.clone());
        id
    };
    diff_ids.iter().map(next).collect()
}

// === impl LayerOutcome ===

impl LayerOutcome {
    fn explain(&mut self, image: &str, status: &Result<Status>) {
        if self.lazy {
            return;
        }
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                self.reason = Some(format!("not known: {error:#}"));
                return;
            }
        };
        let blob = self.digest.to_string();
        let images = status.images.iter().filter(|known| known.reference == image);
        let told = images.flat_map(|known| &known.layers).find_map(|layer| match &layer.outcome {
            OutcomeStatus::FellBack { code, reason } if layer.blob == blob => Some((code, reason)),
            _ => None,
        });
        match told {
            Some((code, reason)) => {
                self.code = Some(code.clone());
                self.reason = Some(reason.clone());
                self.remedy = meaning(code).map(|meaning| meaning.remedy.to_owned());
            }
            None => {
                self.reason =
                    Some("it was unpacked before this pull, and the daemon was not asked".to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_follow_the_specification() {
        let diff_ids = ["sha256:aa".to_owned(), "sha256:bb".to_owned()];
        let chain = chain_ids(&diff_ids);
        assert_eq!(chain[0], "sha256:aa");
        assert_eq!(chain[1], Digest::of(b"sha256:aa sha256:bb").to_string());
        assert_eq!(chain_ids(&[]), Vec::<String>::new());
    }
}
