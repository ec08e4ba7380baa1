//! Images, wherever they are.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use estargz::Digest;
use http::{HeaderValue, Method, header};
use store::{BlobSource, SourceError, SourceErrorKind as Kind};
use tokio::time::Instant;

use crate::{
    auth::Scope,
    client::{Outgoing, RegistryClient, refused},
    endpoint::Endpoint,
    error::Failure,
    layout::OciLayout,
    manifest::{Descriptor, Index, Manifest, Parsed, Platform, media_type},
    reference::Reference,
    upstreams::Need,
};

/// Larger documents are refused; the distribution specification asks registries to take 4 MiB.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;

/// A manifest or index as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The document, to the byte.
    pub bytes: Bytes,
    /// What it is said to be.
    pub media_type: String,
    /// The digest of `bytes`.
    pub digest: Digest,
}

/// One image: its documents and blobs.
#[async_trait]
pub trait ImageSource: Send + Sync + 'static {
    /// The image's own document, or with `digest` another one of the same repository, such as a platform's
    /// manifest that an index names. Checked against its digest.
    async fn manifest(&self, digest: Option<&Digest>) -> Result<Fetched, SourceError>;

    /// A whole blob of at most `max_len` bytes, checked against its digest.
    async fn fetch_blob(&self, digest: &Digest, max_len: u64) -> Result<Bytes, SourceError>;

    /// A blob as a ranged byte source. No request is made.
    fn blob(&self, digest: Digest) -> Arc<dyn BlobSource>;

    /// What this is, for messages; never holds a secret.
    fn describe(&self) -> String;

    /// The manifest for `platform` and its descriptor: the image's own document, or the one that its
    /// index names.
    async fn platform_manifest(&self, platform: &Platform) -> Result<(Fetched, Manifest), SourceError> {
        let mut fetched = self.manifest(None).await?;
        // An index may lead to another index; deeper nesting has no use.
        for _ in 0..3 {
            let index = match fetched.parse().map_err(|error| unusable(&self.describe(), error))? {
                Parsed::Manifest(manifest) => return Ok((fetched, manifest)),
                Parsed::Index(index) => index,
            };
            let chosen = select(&index, platform).map_err(|error| unusable(&self.describe(), error))?;
            fetched = self.manifest(Some(&chosen.digest)).await?;
        }
        Err(refused(format!("{}: its indexes are nested too deeply", self.describe())))
    }
}

/// An image of a registry.
#[derive(Debug, Clone)]
pub struct RegistryImage {
    client: Arc<RegistryClient>,
    reference: Reference,
}

/// The image that `name` means: `oci:DIR[:TAG|@DIGEST]` is one of a directory, anything else a registry's.
pub fn open_image(name: &str, client: &Arc<RegistryClient>) -> Result<Arc<dyn ImageSource>, SourceError> {
    if OciLayout::is_name(name) {
        return Ok(Arc::new(
            OciLayout::parse(name).map_err(|error| refused(error.to_string()).caused_by(error))?,
        ));
    }
    let reference = name.parse::<Reference>().map_err(|error| refused(error.to_string()).caused_by(error))?;
    Ok(Arc::new(client.image(reference)))
}

fn select<'a>(index: &'a Index, platform: &Platform) -> Result<&'a Descriptor, crate::ManifestError> {
    index.select(platform)
}

fn unusable(what: &str, error: crate::ManifestError) -> SourceError {
    refused(format!("{what}: {error}")).caused_by(error)
}

// === impl Fetched ===

impl Fetched {
    /// The document's content.
    pub fn parse(&self) -> Result<Parsed, crate::ManifestError> {
        Parsed::new(&self.bytes, &self.media_type)
    }
}

// === impl RegistryImage ===

impl RegistryImage {
    /// What was asked for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }
}

#[async_trait]
impl ImageSource for RegistryImage {
    async fn manifest(&self, digest: Option<&Digest>) -> Result<Fetched, SourceError> {
        match digest {
            Some(digest) => self.client.manifest(&self.reference.with_digest(*digest)).await,
            None => self.client.manifest(&self.reference).await,
        }
    }

    async fn fetch_blob(&self, digest: &Digest, max_len: u64) -> Result<Bytes, SourceError> {
        self.client.fetch_blob(&self.reference, digest, max_len).await
    }

    fn blob(&self, digest: Digest) -> Arc<dyn BlobSource> {
        self.client.blob(&self.reference, digest)
    }

    fn describe(&self) -> String {
        self.reference.to_string()
    }
}

// === impl RegistryClient ===

impl RegistryClient {
    /// The image that `reference` names.
    pub fn image(self: &Arc<Self>, reference: Reference) -> RegistryImage {
        RegistryImage { client: self.clone(), reference }
    }

    /// The manifest or index that `reference` names, checked against its digest: the pinned one, else
    /// the one that the registry states.
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched, SourceError> {
        let need = if reference.digest().is_some() { Need::Pull } else { Need::Resolve };
        let mut backoff = self.backoff();
        loop {
            let mut round = self.round(reference, need, None).await?;
            while let Some(endpoint) = round.next() {
                let answer_by = round.answer_by(backoff.deadline());
                let fetched =
                    self.manifest_from(&endpoint, reference, need, answer_by, backoff.deadline()).await;
                if let Some(fetched) = round.outcome(fetched) {
                    return Ok(fetched);
                }
            }
            backoff.after(round).await.map_err(|error| SourceError {
                message: format!("{reference}: {}", error.message),
                ..error
            })?;
        }
    }

    async fn manifest_from(
        &self,
        endpoint: &Arc<Endpoint>,
        reference: &Reference,
        need: Need,
        answer_by: Instant,
        deadline: Instant,
    ) -> Result<Fetched, Failure> {
        let scope = Scope::pull(reference.repository());
        let path = format!("manifests/{}", reference.selector());
        let mut request = Outgoing::new(reference, need, scope, Method::GET, path);
        let accept = HeaderValue::try_from(media_type::ALL_MANIFESTS.join(", "));
        request.headers.extend(accept.map(|value| (header::ACCEPT, value)));
        let answer = self.request_once(&request, endpoint, answer_by).await?.expect(&[200]).await?;
        let url = answer.body.url().clone();
        let content_type = answer.header(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type =
            content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim().to_owned();
        let stated = answer.body.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        // A digest of another algorithm cannot be compared; the pinned one, if any, decides.
        let stated = stated.and_then(|value| value.parse::<Digest>().ok());
        let bytes = answer.body.read_all(MAX_MANIFEST, deadline).await?;
        let digest = Digest::of(&bytes);
        match reference.digest().or(stated) {
            Some(expected) if expected != digest => {
                endpoint.sent_wrong_bytes(&self.config, &reference.to_string());
                let what = format!("the manifest has the digest {digest} instead of {expected}");
                Err(Failure::doubtful(&url, what))
            }
            _ => Ok(Fetched { bytes, media_type, digest }),
        }
    }
}

impl From<SourceError> for Failure {
    /// An error that is final wherever it comes from.
    fn from(error: SourceError) -> Self {
        Self { error, retry: crate::error::Retry::Never, status: None }
    }
}

/// The kind of error for something that an image does not have.
pub(crate) fn missing(message: impl Into<String>) -> SourceError {
    SourceError::new(Kind::NotFound, message)
}
