//! Why a layer falls back, from what went wrong.

use estargz::toc::{self, TocError};
use store::{OpenLayerError, SourceError, SourceErrorKind, StoreError};

use crate::{
    lazy::{FallBack, FallBackReason},
    logging::chain,
};

/// A registry did not give `what`.
pub(super) fn source(what: &str, error: &SourceError) -> FallBack {
    FallBack { reason: format!("cannot read {what}: {}", chain(error)), code: source_code(error.kind) }
}

/// The local disk failed.
pub(super) fn store(error: &StoreError) -> FallBack {
    FallBack { reason: chain(error), code: FallBackReason::Local }
}

/// The layer could not be opened.
pub(super) fn open(error: &OpenLayerError) -> FallBack {
    let code = match error {
        OpenLayerError::Source(error) => return source("the layer's table of contents", error),
        OpenLayerError::Footer(_) => FallBackReason::NotEstargz,
        OpenLayerError::Toc(error) => toc_code(error),
        OpenLayerError::TocDigest { .. } => FallBackReason::BadToc,
        OpenLayerError::TocTooLong { .. } => FallBackReason::OverLimit,
        _ => FallBackReason::Local,
    };
    FallBack { reason: chain(error), code }
}

fn toc_code(error: &TocError) -> FallBackReason {
    match error.reason() {
        toc::Reason::Unreadable => FallBackReason::RegistryUnavailable,
        toc::Reason::Damaged => FallBackReason::BadToc,
        toc::Reason::NotUtf8 => FallBackReason::Unsupported,
        toc::Reason::NotVerifiable => FallBackReason::Unverifiable,
        toc::Reason::OverLimit => FallBackReason::OverLimit,
    }
}

fn source_code(kind: SourceErrorKind) -> FallBackReason {
    match kind {
        SourceErrorKind::NotFound => FallBackReason::NotFound,
        SourceErrorKind::Unauthorized | SourceErrorKind::Forbidden => FallBackReason::Unauthorized,
        SourceErrorKind::RangesUnsupported => FallBackReason::RangesUnsupported,
        _ => FallBackReason::RegistryUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use estargz::Digest;

    use super::*;

    fn damaged() -> OpenLayerError {
        let io = io::Error::from(io::ErrorKind::InvalidData);
        OpenLayerError::Toc(Arc::new(TocError::Gzip(io)))
    }

    #[test]
    fn each_failure_has_its_class_and_says_why() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let refused = |kind| OpenLayerError::from(SourceError::new(kind, "registry.example: it said no"));
        let footer = estargz::footer::parse(b"not a footer at all", 19).unwrap_err();
        for (error, code, words) in [
            (refused(SourceErrorKind::NotFound), FallBackReason::NotFound, "said no"),
            (refused(SourceErrorKind::Unauthorized), FallBackReason::Unauthorized, "said no"),
            (refused(SourceErrorKind::Forbidden), FallBackReason::Unauthorized, "said no"),
            (refused(SourceErrorKind::RangesUnsupported), FallBackReason::RangesUnsupported, "said no"),
            (refused(SourceErrorKind::TimedOut), FallBackReason::RegistryUnavailable, "said no"),
            (OpenLayerError::Footer(footer), FallBackReason::NotEstargz, "lazily"),
            (damaged(), FallBackReason::BadToc, "damaged"),
            (
                OpenLayerError::TocDigest { expected: digest("a"), actual: digest("b") },
                FallBackReason::BadToc,
                "the image says",
            ),
            (OpenLayerError::TocTooLong { len: 9, limit: 8 }, FallBackReason::OverLimit, "the limit is 8"),
            (OpenLayerError::Closed, FallBackReason::Local, "closed"),
        ] {
            let fall_back = open(&error);
            assert_eq!(fall_back.code, code, "{error}");
            assert!(fall_back.reason.contains(words), "{}", fall_back.reason);
        }
    }
}
