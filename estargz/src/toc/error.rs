//! Why a layer cannot be served from its TOC.

use std::{fmt, io};

/// Characters of an entry's name that an error shows.
const NAME_SHOWN: usize = 200;

/// Why no index could be built. Each is a reason to fall back to an ordinary layer; [`TocError::reason`] sorts them.
#[derive(Debug, thiserror::Error)]
pub enum TocError {
    /// The TOC's bytes could not be read from where they come.
    #[error("reading the TOC failed")]
    Read(#[source] io::Error),
    /// The TOC is not gzip, or is cut.
    #[error("the TOC's compressed data is damaged or cut")]
    Gzip(#[source] io::Error),
    /// What the TOC's gzip member holds is not the TOC's tar entry.
    #[error("the TOC's tar entry is not valid: {0}")]
    Tar(&'static str),
    /// The TOC is not JSON of the right form.
    #[error("the TOC is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// The TOC is of a version that this crate does not know.
    #[error("the TOC is of version {0}, known is 1")]
    Version(i64),
    /// The TOC's place is nonsense.
    #[error("the TOC cannot start at byte {toc_offset} of a blob of {blob_size} bytes")]
    Place {
        /// Where the TOC would start.
        toc_offset: u64,
        /// Size of the blob.
        blob_size: u64,
    },
    /// Something in the TOC as a whole is beyond a limit of [`crate::limits`].
    #[error("the TOC has more than {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An entry is wrong.
    #[error("TOC entry {name:?}: {problem}")]
    Entry {
        /// Name of the entry, shortened.
        name: String,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a TOC entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The tar entry's name or link target was not UTF-8, which JSON cannot carry.
    #[error("has a name that was not UTF-8, which a TOC cannot carry")]
    NotUtf8,
    /// Content could not be verified.
    #[error("has content without a usable SHA-256 digest, so that the layer cannot be verified")]
    NoDigest,
    /// A number, a length or a depth is beyond a limit.
    #[error("{what} is {found}, the limit is {limit}")]
    OverLimit {
        /// What is beyond the limit.
        what: &'static str,
        /// What the entry says.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A number that counts something is negative.
    #[error("{what} is {found}")]
    Negative {
        /// What is negative.
        what: &'static str,
        /// What the entry says.
        found: i64,
    },
    /// The entry is of a type that this crate does not know.
    #[error("is of unknown type {0:?}")]
    UnknownType(String),
    /// A hard link's target is not in the layer.
    #[error("is a hard link to {0:?}, which is not in the layer")]
    LinkTargetMissing(String),
    /// Hard links that lead to each other.
    #[error("is a hard link that leads back to itself")]
    LinkCycle,
    /// The entry contradicts itself or others.
    #[error("{0}")]
    Nonsense(&'static str),
}

/// The kinds of reasons for which a layer cannot be lazy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Bytes could not be read: another try may help.
    Unreadable,
    /// The TOC is damaged or contradicts itself.
    Damaged,
    /// Names are not UTF-8.
    NotUtf8,
    /// Content cannot be verified.
    NotVerifiable,
    /// Something is beyond a limit.
    OverLimit,
}

impl TocError {
    pub(super) fn entry(name: &str, problem: Problem) -> Self {
        let mut shortened: String = name.chars().take(NAME_SHOWN).collect();
        if shortened.len() < name.len() {
            shortened.push('…');
        }
        Self::Entry { name: shortened, problem }
    }

    /// Which kind of reason this is.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Read(_) => Reason::Unreadable,
            Self::TooMuch { .. } | Self::Entry { problem: Problem::OverLimit { .. }, .. } => {
                Reason::OverLimit
            }
            Self::Entry { problem: Problem::NotUtf8, .. } => Reason::NotUtf8,
            Self::Entry { problem: Problem::NoDigest, .. } => Reason::NotVerifiable,
            _ => Reason::Damaged,
        }
    }
}

impl Reason {
    /// A short, stable word for metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "toc-unreadable",
            Self::Damaged => "toc-damaged",
            Self::NotUtf8 => "names-not-utf8",
            Self::NotVerifiable => "not-verifiable",
            Self::OverLimit => "over-limit",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an entry was refused, before its name is put to it.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The entry itself is wrong.
    Entry(Problem),
    /// The whole TOC is.
    Toc(TocError),
}

impl Refusal {
    /// The error to tell, naming the entry.
    pub(super) fn of(self, name: &str) -> TocError {
        match self {
            Self::Entry(problem) => TocError::entry(name, problem),
            Self::Toc(error) => error,
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Entry(problem)
    }
}

impl From<TocError> for Refusal {
    fn from(error: TocError) -> Self {
        Self::Toc(error)
    }
}
