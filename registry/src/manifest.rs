//! Image manifests and indexes: the few fields that are used, the rest kept as it was.
//!
//! Both families are read: OCI image-spec v1 and Docker's schema 2, which differ in media types only.
//! Fields that are not known are carried over when a document is written again.

use std::collections::BTreeMap;

use estargz::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Media types of documents and layers.
pub mod media_type {
    /// An OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// A Docker image manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// A Docker manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// An OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An OCI layer: tar with gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// All document types that we read, for `Accept`.
    pub const ALL_MANIFESTS: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];
}

/// Lists longer than this are refused; the largest real images have a few hundred entries.
const MAX_ENTRIES: usize = 10_000;

/// A reference to a blob or document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Free annotations, such as the TOC digest of an eStargz layer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// For what machine it is, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A kind of machine (OCI image-spec, `image-index.md`), in Go's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`, …
    pub os: String,
    /// `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What it is; older OCI manifests do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An index of manifests, one for each platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What it is; older OCI indexes do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A document of either kind.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one of these lives per image, a box would only be in the way")]
pub enum Parsed {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Index),
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is not JSON, or a field is missing or malformed.
    #[error("the document of type {media_type:?} is malformed")]
    Malformed {
        /// What it was said to be.
        media_type: String,
        /// What the parser says.
        #[source]
        cause: serde_json::Error,
    },
    /// It is something else, such as a schema 1 manifest.
    #[error("a document of type {0:?} is neither an image manifest nor an index of them")]
    UnknownType(String),
    /// It has too many layers or manifests.
    #[error("the document lists more than {MAX_ENTRIES} entries")]
    TooLong,
    /// No manifest in an index fits.
    #[error("the image has no manifest for {wanted}; it has {found}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
}

// === impl Parsed ===

impl Parsed {
    /// Reads a document. `media_type` is what the registry or descriptor calls it; if that is empty or
    /// unspecific, the document's own word and then its fields decide.
    pub fn new(bytes: &[u8], media_type: &str) -> Result<Self, ManifestError> {
        let media_type = match media_type {
            "" | "application/json" | "text/plain" | "application/octet-stream" => &own_type(bytes),
            other => other,
        };
        let malformed = |cause| ManifestError::Malformed { media_type: media_type.to_owned(), cause };
        let (parsed, len) = match media_type {
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
                let manifest: Manifest = serde_json::from_slice(bytes).map_err(malformed)?;
                let len = manifest.layers.len();
                (Self::Manifest(manifest), len)
            }
            media_type::OCI_INDEX | media_type::DOCKER_INDEX => {
                let index: Index = serde_json::from_slice(bytes).map_err(malformed)?;
                let len = index.manifests.len();
                (Self::Index(index), len)
            }
            other => return Err(ManifestError::UnknownType(other.chars().take(100).collect())),
        };
        if len > MAX_ENTRIES { Err(ManifestError::TooLong) } else { Ok(parsed) }
    }
}

/// What a document says or looks like to be.
fn own_type(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Looks {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice::<Looks>(bytes) {
        Ok(Looks { media_type: Some(own), .. }) => own,
        Ok(Looks { manifests: Some(_), layers: None, .. }) => media_type::OCI_INDEX.to_owned(),
        Ok(Looks { layers: Some(_), .. }) => media_type::OCI_MANIFEST.to_owned(),
        _ => String::new(),
    }
}

// === impl Index ===

impl Index {
    /// The manifest for `wanted`. Without a variant in `wanted` the first of the right architecture is
    /// taken; attestations (`unknown/unknown`) never match.
    pub fn select(&self, wanted: &Platform) -> Result<&Descriptor, ManifestError> {
        let fits = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_some_and(|platform| platform.fits(wanted))
        };
        let exact = |descriptor: &&Descriptor| {
            descriptor
                .platform
                .as_ref()
                .is_some_and(|platform| platform.fits(wanted) && platform.variant == wanted.variant)
        };
        let found = self.manifests.iter().find(exact).or_else(|| self.manifests.iter().find(fits));
        // An index of one manifest that does not say for what it is leaves no choice.
        let only = match self.manifests.as_slice() {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        };
        found
            .or(only)
            .ok_or_else(|| ManifestError::NoPlatform { wanted: wanted.to_string(), found: self.platforms() })
    }

    fn platforms(&self) -> String {
        let platforms = self.manifests.iter().filter_map(|descriptor| descriptor.platform.as_ref());
        let names: Vec<_> = platforms.take(20).map(Platform::to_string).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

// === impl Platform ===

impl Platform {
    /// Linux on the architecture that this program was built for.
    pub fn current() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7".to_owned())),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant, other: Map::new() }
    }

    /// Reads `os/architecture[/variant]`; `None` if that is not its form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (os, architecture) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let variant = parts.next().map(str::to_owned);
        let complete = parts.next().is_none() && !os.is_empty() && !architecture.is_empty();
        complete.then_some(Self { architecture, os, variant, other: Map::new() })
    }

    fn fits(&self, wanted: &Self) -> bool {
        // arm64 has one variant in practice and may or may not say so.
        let variant = |platform: &Self| match (platform.architecture.as_str(), platform.variant.as_deref()) {
            ("arm64", Some("v8")) => None,
            (_, variant) => variant.map(str::to_owned),
        };
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (variant(wanted).is_none() || variant(self) == variant(wanted))
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests;
