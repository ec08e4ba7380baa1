//! Footers: where in a blob its TOC starts.
//!
//! A footer is an empty gzip member at the end of the blob, whose `Extra` field (RFC 1952, 2.3.1.1)
//! carries the TOC's offset. Kinds are told apart by their length; they are tried longest first. A
//! kind that this version cannot read is still recognised, so that the reason can be told.

/// Length of the longest footer, in bytes: reading this much of a blob's end is enough for every kind.
pub const MAX_LEN: usize = 51;

const LEGACY_LEN: usize = 47;
const EXTERNAL_TOC_LEN: usize = 46;
const ZSTD_CHUNKED_LEN: usize = 40;

/// Magic number at the end of a zstd:chunked footer.
const ZSTD_CHUNKED_MAGIC: &[u8; 8] = b"GnUlInUx";
/// What an eStargz footer with an external TOC carries instead of an offset.
const EXTERNAL_TOC_MARK: &[u8] = b"STARGZEXTERNALTOC";
/// Follows the offset in both eStargz and legacy stargz footers.
const MARK: &[u8; 6] = b"STARGZ";
/// Bytes of a gzip header before the `Extra` field's content: 10 fixed, 2 of length.
const EXTRA_START: usize = 12;
/// Gzip flag FEXTRA: the header has an `Extra` field.
const FEXTRA: u8 = 4;

/// How a blob says where its TOC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// eStargz: 51 bytes, the offset in a subfield `SG` of the gzip header.
    Estargz,
    /// CRFS' stargz: 47 bytes, the offset is the whole `Extra` field.
    LegacyStargz,
}

/// What the end of a blob says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Which of the formats this is.
    pub kind: Kind,
    /// Where in the blob the TOC's gzip member starts, in bytes.
    pub toc_offset: u64,
    /// Length of the footer, in bytes: the TOC's member ends at `blob_size - len`.
    pub len: u64,
}

/// Why the end of a blob does not lead to a TOC that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// No known footer: most often an ordinary layer.
    #[error("no eStargz footer at the end of the blob")]
    NotFound,
    /// Fewer bytes than [`parse`] asks for.
    #[error("{given} bytes of a blob of {blob_size} bytes are too few to look for a footer")]
    TooShort {
        /// Bytes that were given.
        given: usize,
        /// Size of the blob.
        blob_size: u64,
    },
    /// The blob is zstd:chunked.
    #[error("zstd:chunked layers cannot be read lazily yet")]
    ZstdChunked,
    /// The TOC is in another image.
    #[error("layers with an external TOC cannot be read lazily yet")]
    ExternalToc,
    /// The footer is there but what it says is nonsense.
    #[error("the footer points to a TOC at byte {toc_offset} of a blob of {blob_size} bytes")]
    OffsetOutside {
        /// Where the TOC would start.
        toc_offset: u64,
        /// Size of the blob.
        blob_size: u64,
    },
}

/// Finds the footer in `tail`, the last bytes of a blob of `blob_size` bytes. `tail` must have at
/// least [`MAX_LEN`] bytes, or be the whole blob.
pub fn parse(tail: &[u8], blob_size: u64) -> Result<Footer, FooterError> {
    if (tail.len() as u64) < blob_size.min(MAX_LEN as u64) {
        return Err(FooterError::TooShort { given: tail.len(), blob_size });
    }
    let gzip = [
        (Kind::Estargz, MAX_LEN, estargz_offset as fn(&[u8]) -> Option<u64>),
        (Kind::LegacyStargz, LEGACY_LEN, legacy_offset),
    ];
    for (kind, len, offset_of) in gzip {
        let Some(toc_offset) = last(tail, len).and_then(extra_field).and_then(offset_of) else { continue };
        let len = len as u64;
        if toc_offset == 0 || blob_size.checked_sub(len).is_none_or(|end| toc_offset >= end) {
            return Err(FooterError::OffsetOutside { toc_offset, blob_size });
        }
        return Ok(Footer { kind, toc_offset, len });
    }
    if last(tail, ZSTD_CHUNKED_LEN).is_some_and(|footer| footer.ends_with(ZSTD_CHUNKED_MAGIC)) {
        return Err(FooterError::ZstdChunked);
    }
    if last(tail, EXTERNAL_TOC_LEN).and_then(extra_field).and_then(subfield) == Some(EXTERNAL_TOC_MARK) {
        return Err(FooterError::ExternalToc);
    }
    Err(FooterError::NotFound)
}

fn last(tail: &[u8], len: usize) -> Option<&[u8]> {
    tail.get(tail.len().checked_sub(len)?..)
}

/// The `Extra` field of the gzip header at the start of `member`.
fn extra_field(member: &[u8]) -> Option<&[u8]> {
    let [0x1f, 0x8b, 8, flags, _, _, _, _, _, _, len @ ..] = member else { return None };
    if flags & FEXTRA == 0 {
        return None;
    }
    let len = u16::from_le_bytes(*len.first_chunk()?);
    member.get(EXTRA_START..EXTRA_START + usize::from(len))
}

/// The content of the subfield `SG`, which must be all of `extra`.
fn subfield(extra: &[u8]) -> Option<&[u8]> {
    let [b'S', b'G', low, high, content @ ..] = extra else { return None };
    (content.len() == usize::from(u16::from_le_bytes([*low, *high]))).then_some(content)
}

fn estargz_offset(extra: &[u8]) -> Option<u64> {
    legacy_offset(subfield(extra)?)
}

/// Sixteen hexadecimal digits, then the mark.
fn legacy_offset(extra: &[u8]) -> Option<u64> {
    let digits: &[u8; 16] = extra.strip_suffix(MARK)?.try_into().ok()?;
    digits
        .iter()
        .try_fold(0u64, |offset, &digit| Some(offset << 4 | u64::from(char::from(digit).to_digit(16)?)))
}

#[cfg(test)]
mod tests;
