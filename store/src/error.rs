//! What can go wrong.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use estargz::{Digest, IndexError, footer::FooterError, toc::TocError};

use crate::SourceError;

/// Something is wrong with the store's own files.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct StoreError {
    /// What was tried.
    pub action: &'static str,
    /// With which file or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub cause: Arc<io::Error>,
}

/// A layer cannot be opened. Each is a reason to fall back to an ordinary layer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenLayerError {
    /// The blob could not be read.
    #[error("the end of the blob cannot be read")]
    Source(#[source] Arc<SourceError>),
    /// The blob is not eStargz.
    #[error("the blob cannot be read lazily")]
    Footer(#[source] FooterError),
    /// The TOC cannot be served from.
    #[error("the layer's TOC cannot be used")]
    Toc(#[source] Arc<TocError>),
    /// The TOC is not the one that the image names.
    #[error("the layer's TOC has digest {actual}, the image says {expected}")]
    TocDigest {
        /// What the image says.
        expected: Digest,
        /// What the TOC has.
        actual: Digest,
    },
    /// The TOC is longer than can be right.
    #[error("the layer's TOC has {len} compressed bytes, the limit is {limit}")]
    TocTooLong {
        /// Its length in the blob.
        len: u64,
        /// The limit.
        limit: u64,
    },
    /// The index that was just built cannot be read.
    #[error("the layer's index cannot be used")]
    Index(#[source] IndexError),
    /// The layer's files could not be written or read.
    #[error("the layer's files cannot be used")]
    Store(#[from] StoreError),
    /// The store is being closed.
    #[error("the store is being closed")]
    Closed,
}

/// A file's bytes cannot be given.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The blob could not be read.
    #[error("missing bytes cannot be fetched")]
    Source(#[source] Arc<SourceError>),
    /// The blob's bytes are not the ones that the TOC vouches for, also when read again from the origin.
    #[error("chunk {chunk} of the layer does not match its digest: {reason}")]
    Corrupt {
        /// Number of the chunk.
        chunk: u32,
        /// What did not match.
        reason: Arc<str>,
    },
    /// The bytes did not arrive in time.
    #[error("missing bytes did not arrive within {} seconds", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The node is not a file, or the index is damaged.
    #[error("the layer's index does not know these bytes")]
    Index(#[from] IndexError),
    /// The content file cannot be read or written.
    #[error("the layer's content file cannot be used")]
    Content(#[source] Arc<io::Error>),
    /// The bytes came so slowly that the memory for them was given to others.
    #[error("missing bytes came too slowly to hold memory for them")]
    GaveWay,
    /// The store was closed while bytes were on their way.
    #[error("the store is being closed")]
    Closed,
}

// === impl StoreError ===

impl StoreError {
    /// Makes the error of something tried with a file.
    pub(crate) fn new(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self { action, path, cause: Arc::new(cause) }
    }
}

// === impl OpenLayerError ===

impl From<SourceError> for OpenLayerError {
    fn from(error: SourceError) -> Self {
        Self::Source(Arc::new(error))
    }
}

impl From<TocError> for OpenLayerError {
    fn from(error: TocError) -> Self {
        Self::Toc(Arc::new(error))
    }
}

// === impl ReadError ===

impl From<SourceError> for ReadError {
    fn from(error: SourceError) -> Self {
        Self::Source(Arc::new(error))
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Content(Arc::new(error))
    }
}
