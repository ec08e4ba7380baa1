//! Where missing bytes come from: one compressed blob that can be read by range.
//!
//! The store knows nothing about HTTP, registries or directories; whoever opens a layer hands it a
//! [`BlobSource`]. What a source returns is not trusted: the store verifies every chunk.

use std::{fmt, ops::Range, time::Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

/// The bytes of a range, in order, as they arrive. It ends after exactly the bytes that were asked for,
/// or with one error as its last item.
pub type ByteStream = BoxStream<'static, Result<Bytes, SourceError>>;

/// One compressed blob as a ranged byte source.
#[async_trait]
pub trait BlobSource: Send + Sync + 'static {
    /// The last `len` bytes (the whole blob if it is shorter) and the blob's size, in one request where
    /// the origin allows it.
    async fn read_tail(&self, len: u64) -> Result<Tail, SourceError>;

    /// The bytes of `range`, in order, as they arrive; ends early only with an error.
    async fn read_range(&self, range: Range<u64>, class: Class) -> Result<ByteStream, SourceError>;

    /// Bytes just read did not match their digest: the next read should come from the origin, neither
    /// from a mirror nor from a remembered redirect.
    fn distrust(&self);

    /// As `distrust`, of the bytes of `range`: a source that reads from several places knows which of them sent those.
    fn distrust_range(&self, range: Range<u64>) {
        let _ = range;
        self.distrust();
    }

    /// What this is, for messages; never holds a secret.
    fn describe(&self) -> String;

    /// What tells how fast this is: sources with the same origin share their measurements. A host, if there is one.
    fn origin(&self) -> String {
        self.describe()
    }

    /// The blob's size in bytes if it is known without asking: lets the first request be of the right length.
    fn size_hint(&self) -> Option<u64> {
        None
    }
}

/// The end of a blob.
#[derive(Clone, PartialEq, Eq)]
pub struct Tail {
    /// The last bytes of the blob; all of them if the blob is shorter than what was asked for.
    pub bytes: Bytes,
    /// The length of the whole blob in bytes.
    pub blob_size: u64,
    /// How the bytes came, if it was over a link, in one answer that held nothing else.
    pub arrival: Option<Arrival>,
}

/// How bytes came over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When they were asked for.
    pub asked: Instant,
    /// When the first of them were there, and when the last.
    pub time: Range<Instant>,
    /// How many came in that time: all but those that were there at its beginning.
    pub bytes: u64,
}

/// How urgent a read is; the first is the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A process waits for it. Never queued behind the other classes.
    Demand,
    /// Next to what a process waits for.
    ReadAhead,
    /// What a plan says will be needed.
    Prefetch,
    /// The rest of the layer, when nobody waits.
    Background,
}

/// A source could not give the bytes.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What kind of failure it is, for decisions.
    pub kind: SourceErrorKind,
    /// What failed, where, and what to do about it; never holds a secret or a signed URL.
    pub message: String,
    /// What it was caused by.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of [`SourceError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceErrorKind {
    /// The blob, repository or tag does not exist.
    NotFound,
    /// Credentials are missing or were refused.
    Unauthorized,
    /// Credentials were accepted but do not suffice.
    Forbidden,
    /// The origin could not be reached or kept failing until the retries were used up.
    Unavailable,
    /// The origin did not answer within the time allowed.
    TimedOut,
    /// The origin does not serve parts of the blob, so that it cannot be read lazily.
    RangesUnsupported,
    /// The origin answered with something that breaks the protocol.
    Protocol,
}

// === impl Tail ===

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, blob_size, arrival } = self;
        f.debug_struct("Tail")
            .field("len", &bytes.len())
            .field("blob_size", blob_size)
            .field("arrival", arrival)
            .finish()
    }
}

// === impl SourceError ===

impl SourceError {
    /// An error without a cause.
    pub fn new(kind: SourceErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None }
    }

    /// The same error with what it was caused by.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

// === impl SourceErrorKind ===

impl SourceErrorKind {
    /// A short fixed name in lower case, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
            Self::RangesUnsupported => "ranges_unsupported",
            Self::Protocol => "protocol",
        }
    }
}

impl fmt::Display for SourceErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
