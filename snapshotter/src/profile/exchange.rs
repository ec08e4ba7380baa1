//! Profiles in registries: artifacts whose subject is the image.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use estargz::Digest;
use registry::{Descriptor, Manifest, Parsed, Reference, Referrer, RegistryClient};
use serde_json::Value;
use store::{SourceError, SourceErrorKind};

use super::{Document, InvalidDocument, RECORDED, TYPE};

/// Artifacts of one image that are tried: anyone who may push can add more.
const MOST_TRIED: usize = 3;

/// The layers of an image: blob, and table of contents if the manifest vouches for one.
pub type Layers = [(Digest, Option<Digest>)];

/// Why a profile could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The registry did not answer, or refused.
    #[error("cannot read the profile of {manifest}")]
    Registry {
        /// The image.
        manifest: Digest,
        /// What the registry client says.
        #[source]
        source: SourceError,
    },
    /// There is something, and it is not a profile of this image.
    #[error("what {artifact} holds is not a profile of the image")]
    Refused {
        /// The artifact.
        artifact: Digest,
        /// What is wrong with it.
        #[source]
        source: InvalidDocument,
    },
}

/// The latest profile of the image `manifest` with these `layers` that its repository holds; none if it holds none.
///
/// # Errors
/// The registry cannot be asked, or holds none but unusable ones.
pub async fn pull(
    client: &Arc<RegistryClient>,
    reference: &Reference,
    manifest: Digest,
    layers: &Layers,
) -> Result<Option<Document>, PullError> {
    let failed = |source| PullError::Registry { manifest, source };
    let mut listed = client.referrers(reference, &manifest, TYPE).await.map_err(failed)?;
    listed.sort_by_key(|descriptor| Reverse(recorded(&descriptor.annotations)));
    let mut refused = None;
    for descriptor in listed.iter().take(MOST_TRIED) {
        let bytes = fetch(client, reference, manifest, descriptor).await.map_err(failed)?;
        let checked = Document::parse(&bytes).and_then(|document| {
            document.check(manifest, layers)?;
            Ok(document)
        });
        match checked {
            Ok(document) => return Ok(Some(document)),
            Err(source) => {
                refused.get_or_insert(PullError::Refused { artifact: descriptor.digest, source });
            }
        }
    }
    refused.map_or(Ok(None), Err)
}

/// Pushes `document` as an artifact about its image, which the repository of `reference` must have; gives the digest
/// of the artifact's manifest.
///
/// # Errors
/// The registry cannot be reached, does not have the image, or refuses the artifact.
pub async fn push(
    client: &Arc<RegistryClient>,
    reference: &Reference,
    document: &Document,
) -> Result<Digest, SourceError> {
    let image = client.manifest(&reference.with_digest(document.manifest)).await?;
    let subject = Descriptor {
        media_type: image.media_type.clone(),
        digest: document.manifest,
        size: image.bytes.len() as u64,
        annotations: BTreeMap::new(),
        platform: None,
        other: serde_json::Map::new(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let payload = serde_json::to_vec(document)
        .map_err(|cause| refused("the profile cannot be written").caused_by(cause))?;
    let referrer = Referrer {
        artifact_type: TYPE.to_owned(),
        media_type: TYPE.to_owned(),
        payload: payload.into(),
        annotations: BTreeMap::from([(RECORDED.to_owned(), now.to_string())]),
    };
    client.push_referrer(reference, &subject, &referrer).await
}

/// The document in an artifact, if the artifact says itself that it is about the image.
async fn fetch(
    client: &Arc<RegistryClient>,
    reference: &Reference,
    subject: Digest,
    descriptor: &Descriptor,
) -> Result<bytes::Bytes, SourceError> {
    let fetched = client.manifest(&reference.with_digest(descriptor.digest)).await?;
    let parsed = fetched.parse().map_err(|cause| refused("the artifact is malformed").caused_by(cause))?;
    let Parsed::Manifest(artifact) = parsed else { return Err(refused("the artifact is an index")) };
    if about(&artifact) != Some(subject) {
        return Err(refused("the artifact is about another image"));
    }
    match artifact.layers.as_slice() {
        [only] if only.media_type == TYPE => {
            client.fetch_blob(reference, &only.digest, Document::MOST_BYTES as u64).await
        }
        _ => Err(refused("the artifact does not hold one profile")),
    }
}

/// The subject of an artifact.
fn about(artifact: &Manifest) -> Option<Digest> {
    artifact.other.get("subject")?.get("digest").and_then(Value::as_str)?.parse().ok()
}

fn recorded(annotations: &BTreeMap<String, String>) -> u64 {
    annotations.get(RECORDED).and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

fn refused(message: &str) -> SourceError {
    SourceError::new(SourceErrorKind::Protocol, message)
}
