//! The document that a profile is exchanged as. Its bytes are outside data: from a registry, or from a file.

use estargz::Digest;
use serde::{Deserialize, Serialize};

/// The type of the artifact, and the media type of the document in it.
pub const TYPE: &str = "application/vnd.starling.profile.v1+json";
/// The annotation that says when a profile was exported, in seconds since 1970: the latest one is the best.
pub const RECORDED: &str = "vnd.starling.profile.recorded";

/// The order in which the files of an image are read first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Always [`Document::VERSION`].
    pub version: u32,
    /// The image's manifest.
    pub manifest: Digest,
    /// The layers that accesses speak of.
    pub layers: Vec<Part>,
    /// The first accesses, in order.
    pub accesses: Vec<Access>,
}

/// A layer of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its blob.
    pub blob: Digest,
    /// Its table of contents.
    pub toc: Digest,
}

/// A part of a file that is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The number of the layer in [`Document::layers`].
    pub layer: u32,
    /// The file's path in the layer, without a slash in front.
    pub path: String,
    /// Where the part begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// Milliseconds after the start.
    pub at: u32,
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDocument {
    /// It is larger than any profile is.
    #[error("it has {0} bytes, more than {most}", most = Document::MOST_BYTES)]
    TooLong(usize),
    /// It is not JSON of the right form.
    #[error("it cannot be read")]
    Malformed(#[from] serde_json::Error),
    /// It is of another version.
    #[error("it is of version {0} instead of {expected}", expected = Document::VERSION)]
    Version(u32),
    /// It lists more than any profile does.
    #[error("it lists {0} layers or accesses, which is too many")]
    TooMany(usize),
    /// An access speaks of no layer of the document.
    #[error("it speaks of layer {0}, which it does not list")]
    NoSuchLayer(u32),
    /// It is about another image.
    #[error("it is about the image {found} and not about {expected}")]
    OtherImage {
        /// The image in question.
        expected: Digest,
        /// The one that the document names.
        found: Digest,
    },
    /// It is about a layer that the image does not have.
    #[error("it is about the layer {0}, which the image does not have")]
    OtherLayer(Digest),
}

// === impl Document ===

impl Document {
    /// The version of this form.
    pub const VERSION: u32 = 1;
    /// The longest document that is read: 100 bytes for each of 80,000 accesses.
    pub const MOST_BYTES: usize = 8 << 20;
    /// Most accesses: no start reads more files.
    pub const MOST_ACCESSES: usize = 1 << 17;
    /// Most layers: overlayfs stacks 500.
    pub const MOST_LAYERS: usize = 1024;

    /// Reads a document.
    ///
    /// # Errors
    /// It is too large, malformed, or contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidDocument> {
        if bytes.len() > Self::MOST_BYTES {
            return Err(InvalidDocument::TooLong(bytes.len()));
        }
        let document: Self = serde_json::from_slice(bytes)?;
        if document.version != Self::VERSION {
            return Err(InvalidDocument::Version(document.version));
        }
        if document.layers.len() > Self::MOST_LAYERS {
            return Err(InvalidDocument::TooMany(document.layers.len()));
        }
        if document.accesses.len() > Self::MOST_ACCESSES {
            return Err(InvalidDocument::TooMany(document.accesses.len()));
        }
        let listed = |access: &&Access| access.layer as usize >= document.layers.len();
        match document.accesses.iter().find(listed) {
            Some(access) => Err(InvalidDocument::NoSuchLayer(access.layer)),
            None => Ok(document),
        }
    }

    /// Whether it is about the image `manifest` with these `layers` (blob, and table of contents if the manifest
    /// vouches for one) and no other.
    ///
    /// # Errors
    /// It is about something else.
    pub fn check(
        &self,
        manifest: Digest,
        layers: &[(Digest, Option<Digest>)],
    ) -> Result<(), InvalidDocument> {
        if self.manifest != manifest {
            return Err(InvalidDocument::OtherImage { expected: manifest, found: self.manifest });
        }
        let has = |part: &Part| layers.contains(&(part.blob, Some(part.toc)));
        match self.layers.iter().find(|part| !has(part)) {
            Some(part) => Err(InvalidDocument::OtherLayer(part.blob)),
            None => Ok(()),
        }
    }

    /// The files in the order of their first access, each once.
    pub fn files(&self) -> Vec<&str> {
        let mut seen = std::collections::HashSet::new();
        let paths = self.accesses.iter().map(|access| access.path.as_str());
        paths.filter(|path| seen.insert(*path)).collect()
    }
}

#[cfg(test)]
mod tests;
