//! Documents about an image: artifacts whose manifest names it as its `subject` (OCI distribution-spec 1.1, "Listing
//! Referrers").
//!
//! A registry that knows referrers lists them by the image's digest. For one that does not, whoever pushes a referrer
//! keeps the list itself, as an index under a tag made of the digest; whoever looks for referrers reads that.

use bytes::Bytes;
use estargz::Digest;
use http::{HeaderValue, Method, header};
use serde_json::{Map, Value, json};
use store::{SourceError, SourceErrorKind as Kind};

use crate::{
    auth::Scope,
    client::{Outgoing, RegistryClient, Target},
    image::MAX_MANIFEST,
    manifest::{Descriptor, Index, Parsed, media_type},
    reference::Reference,
    upstreams::Need,
};

/// The header by which a registry says that it keeps the list of referrers (distribution-spec, "Pushing Manifests with
/// Subject").
const SUBJECT: &str = "oci-subject";
/// The configuration of an artifact that has none (image-spec, "Guidance for an Empty Descriptor").
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// Referrers in a list under a tag: the oldest go.
const MOST: usize = 256;

/// An artifact about an image, to be pushed.
#[derive(Debug, Clone)]
pub struct Referrer {
    /// What kind of artifact it is.
    pub artifact_type: String,
    /// The media type of its only blob.
    pub media_type: String,
    /// Its only blob.
    pub payload: Bytes,
    /// Annotations of its manifest, which lists of referrers repeat.
    pub annotations: std::collections::BTreeMap<String, String>,
}

// === impl RegistryClient ===

impl RegistryClient {
    /// The manifests of type `artifact_type` that are about the image `subject`, as the registry lists them.
    pub async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, SourceError> {
        let listed = match self.listed(reference, subject, artifact_type).await? {
            Some(index) => Some(index),
            None => self.tagged(reference, subject).await?,
        };
        let listed = listed.map(|index| index.manifests).unwrap_or_default();
        // A registry need not filter, and the list under a tag is never filtered.
        Ok(listed.into_iter().filter(|descriptor| is_of_type(descriptor, artifact_type)).collect())
    }

    /// Pushes an artifact about the image `subject`; gives the digest of its manifest.
    pub async fn push_referrer(
        &self,
        reference: &Reference,
        subject: &Descriptor,
        referrer: &Referrer,
    ) -> Result<Digest, SourceError> {
        let config = self.upload_bytes(reference, Bytes::from_static(EMPTY)).await?;
        let payload = self.upload_bytes(reference, referrer.payload.clone()).await?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "artifactType": referrer.artifact_type,
            "config": { "mediaType": EMPTY_TYPE, "digest": config, "size": EMPTY.len(), "data": "e30=" },
            "layers": [
                { "mediaType": referrer.media_type, "digest": payload, "size": referrer.payload.len() }
            ],
            "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.size },
            "annotations": referrer.annotations,
        });
        let bytes = Bytes::from(manifest.to_string());
        let (size, digest) = (bytes.len() as u64, Digest::of(&bytes));
        let place = reference.with_digest(digest);
        let known = self.put_by_digest(&place, digest, bytes).await?;
        if !known {
            let mut other = Map::new();
            other.insert("artifactType".to_owned(), Value::String(referrer.artifact_type.clone()));
            let descriptor = Descriptor {
                media_type: media_type::OCI_MANIFEST.to_owned(),
                digest,
                size,
                annotations: referrer.annotations.clone(),
                platform: None,
                other,
            };
            self.add_to_tag(reference, &subject.digest, descriptor).await?;
        }
        Ok(digest)
    }

    /// The registry's own list; none if it keeps none.
    async fn listed(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Option<Index>, SourceError> {
        let scope = Scope::pull(reference.repository());
        let mut request = Outgoing::new(reference, Need::Referrers, scope, Method::GET, String::new());
        let query = vec![("artifactType".to_owned(), artifact_type.to_owned())];
        request.target = Target::Query(format!("referrers/{subject}"), query);
        request.headers.insert(header::ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX));
        let deadline = self.backoff().deadline();
        // Registries of before 1.1 answer with whatever they say to a path that they do not know.
        let answer = self.request(&request, &[200, 400, 404, 405, 406, 501]).await?;
        if answer.status() != http::StatusCode::OK {
            return Ok(None);
        }
        let bytes = answer.body.read_all(MAX_MANIFEST, deadline).await?;
        Ok(index(&bytes))
    }

    /// The list under the tag that stands for `subject`; none if there is none.
    async fn tagged(&self, reference: &Reference, subject: &Digest) -> Result<Option<Index>, SourceError> {
        match self.manifest(&list_of(reference, subject)?).await {
            Ok(fetched) => Ok(index(&fetched.bytes)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a referrer to the list under the tag. Two that do this at the same time may lose one of their entries, as
    /// the specification says; whoever notices pushes again.
    async fn add_to_tag(
        &self,
        reference: &Reference,
        subject: &Digest,
        descriptor: Descriptor,
    ) -> Result<(), SourceError> {
        let empty = || Index {
            schema_version: 2,
            media_type: None,
            manifests: Vec::new(),
            annotations: std::collections::BTreeMap::new(),
            other: Map::new(),
        };
        let mut list = self.tagged(reference, subject).await?.unwrap_or_else(empty);
        list.media_type = Some(media_type::OCI_INDEX.to_owned());
        list.manifests.retain(|known| known.digest != descriptor.digest);
        list.manifests.push(descriptor);
        let surplus = list.manifests.len().saturating_sub(MOST);
        list.manifests.drain(..surplus);
        let bytes = serde_json::to_vec(&list).map_err(|cause| {
            SourceError::new(Kind::Protocol, "the list of referrers cannot be written").caused_by(cause)
        })?;
        self.put_manifest(&list_of(reference, subject)?, media_type::OCI_INDEX, bytes.into()).await?;
        Ok(())
    }

    /// Puts an artifact's manifest. Says whether the registry will list it.
    async fn put_by_digest(
        &self,
        place: &Reference,
        digest: Digest,
        bytes: Bytes,
    ) -> Result<bool, SourceError> {
        let scope = Scope::push(place.repository(), &[]);
        let path = format!("manifests/{digest}");
        let mut request = Outgoing::new(place, Need::Push, scope, Method::PUT, path);
        request.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type::OCI_MANIFEST));
        request.payload = crate::payload::Payload::Bytes(bytes);
        let answer = self.request(&request, &[200, 201, 202]).await?;
        Ok(answer.body.headers().contains_key(SUBJECT))
    }
}

/// The tag under which the referrers of `subject` are listed (distribution-spec, "Referrers Tag Schema").
fn list_of(reference: &Reference, subject: &Digest) -> Result<Reference, SourceError> {
    let tag = subject.to_string().replace(':', "-");
    reference
        .with_tag(&tag)
        .map_err(|error| SourceError::new(Kind::Protocol, error.to_string()).caused_by(error))
}

/// An index, if that is what the registry sent.
fn index(bytes: &[u8]) -> Option<Index> {
    match Parsed::new(bytes, media_type::OCI_INDEX) {
        Ok(Parsed::Index(index)) => Some(index),
        _ => None,
    }
}

fn is_of_type(descriptor: &Descriptor, artifact_type: &str) -> bool {
    descriptor.other.get("artifactType").and_then(Value::as_str) == Some(artifact_type)
}
