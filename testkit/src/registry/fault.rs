//! What can go wrong with an answer.

/// Which requests a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Every request.
    Any,
    /// GETs of blobs, at the registry or where it redirects to.
    Blob,
    /// GETs of blobs at the registry only.
    BlobAtRegistry,
    /// GETs of blobs at the redirect's target only.
    BlobAtCdn,
    /// GETs of blobs whose `Range` is a suffix (`bytes=-N`).
    SuffixRange,
    /// GETs of blobs with any `Range` but a suffix.
    PlainRange,
    /// GETs and HEADs of manifests.
    Manifest,
    /// Questions about what refers to an image, by the API for it or the tag that stands in for it.
    Referrers,
    /// HEADs of anything.
    Head,
    /// Requests for a token.
    Token,
}

/// How the answer is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status without a body.
    Status(u16),
    /// This status with a `Retry-After` of so many seconds.
    RetryAfter(u16, u32),
    /// The connection is closed without an answer.
    Reset,
    /// The body is cut after so many bytes, by closing the connection.
    Truncate(u64),
    /// The body is complete and well-formed, but has so many bytes fewer than were asked for.
    Shorten(u64),
    /// `Content-Range` names a range so many bytes further on.
    ShiftContentRange(u64),
    /// The range is ignored: 200 and the whole blob.
    IgnoreRange,
    /// One bit of the body is flipped, at this offset in the body (modulo its length).
    FlipBit(u64),
    /// No answer until the faults are cleared or the client gives up.
    Stall,
    /// So many bytes of the body, then nothing until the faults are cleared or the client gives up.
    StallBody(u64),
    /// The body comes in chunks, without a length.
    Chunked,
}

/// A fault with the requests it strikes and how many are left.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) on: On,
    pub(super) fault: Fault,
    pub(super) left: Option<u32>,
}

/// What a request is, as far as rules care.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traits {
    pub(super) blob: bool,
    pub(super) at_cdn: bool,
    pub(super) manifest: bool,
    pub(super) referrers: bool,
    pub(super) token: bool,
    pub(super) head: bool,
    pub(super) range: bool,
    pub(super) suffix: bool,
}

impl On {
    fn matches(self, request: Traits) -> bool {
        let blob = request.blob && !request.head;
        match self {
            Self::Any => true,
            Self::Blob => blob,
            Self::BlobAtRegistry => blob && !request.at_cdn,
            Self::BlobAtCdn => blob && request.at_cdn,
            Self::SuffixRange => blob && request.suffix,
            Self::PlainRange => blob && request.range && !request.suffix,
            Self::Manifest => request.manifest,
            Self::Referrers => request.referrers,
            Self::Head => request.head,
            Self::Token => request.token,
        }
    }
}

/// The first rule that strikes, used up by one.
pub(super) fn strike(rules: &mut [Rule], request: Traits) -> Option<Fault> {
    let at = rules.iter().position(|rule| rule.on.matches(request) && rule.left != Some(0))?;
    let rule = rules.get_mut(at)?;
    if let Some(left) = &mut rule.left {
        *left -= 1;
    }
    Some(rule.fault.clone())
}
