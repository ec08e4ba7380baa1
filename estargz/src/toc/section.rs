//! The bytes of the TOC: out of its gzip member and its tar entry, counted and hashed as they pass.
//!
//! Nothing is held but fixed buffers. What other containers of a TOC need (zstd:chunked has bare JSON in
//! a zstd frame, an external TOC is a layer of its own) goes beside [`open`], before [`Payload`].

use std::{
    cell::Cell,
    io::{self, BufReader, Read},
};

use flate2::bufread::GzDecoder;

use super::TocError;
use crate::{Digest, Sha256, limits};

/// Name of the TOC's tar entry.
pub(super) const TOC_NAME: &str = "stargz.index.json";

const BUFFER_LEN: usize = 64 << 10;
const TAR_BLOCK_LEN: usize = 512;

/// Bytes of JSON that may be read before a new allowance: the parser gathers strings whole, so what is
/// read at once bounds its memory.
#[derive(Debug)]
pub(super) struct Allowance(Cell<u64>);

/// The compressed TOC, not longer than its limit.
struct Section<R> {
    inner: R,
    left: u64,
}

/// The TOC's JSON.
pub(super) struct Payload<'a, R: Read> {
    gzip: GzDecoder<BufReader<Section<R>>>,
    left: u64,
    hasher: Sha256,
    allowance: &'a Allowance,
}

/// Carries the errors that are not gzip's through readers that know [`io::Error`] only.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("reading failed")]
    Source(#[source] io::Error),
    #[error("compressed bytes")]
    SectionTooLong,
    #[error("bytes in one entry")]
    EntryTooLong,
}

/// Opens the TOC in `section`: inflates and reads its tar header.
pub(super) fn open<R: Read>(section: R, allowance: &Allowance) -> Result<Payload<'_, R>, TocError> {
    let section = Section { inner: section, left: limits::TOC_SECTION_LEN };
    let mut gzip = GzDecoder::new(BufReader::with_capacity(BUFFER_LEN, section));
    let mut header = [0; TAR_BLOCK_LEN];
    gzip.read_exact(&mut header).map_err(error_of)?;
    let left = tar_entry_len(&header)?;
    if left > limits::TOC_LEN {
        return Err(TocError::TooMuch { what: "bytes", limit: limits::TOC_LEN });
    }
    Ok(Payload { gzip, left, hasher: Sha256::new(), allowance })
}

/// What an error from a [`Payload`] means.
pub(super) fn error_of(error: io::Error) -> TocError {
    match error.downcast::<Failure>() {
        Ok(Failure::Source(cause)) => TocError::Read(cause),
        Ok(Failure::SectionTooLong) => {
            TocError::TooMuch { what: "compressed bytes", limit: limits::TOC_SECTION_LEN }
        }
        Ok(Failure::EntryTooLong) => {
            TocError::TooMuch { what: "bytes in one entry", limit: limits::TOC_ENTRY_LEN }
        }
        Err(cause) => TocError::Gzip(cause),
    }
}

/// The length that a tar header gives, if it is the header of the TOC.
fn tar_entry_len(header: &[u8; TAR_BLOCK_LEN]) -> Result<u64, TocError> {
    let field = |from: usize, len: usize| header.get(from..from + len).unwrap_or_default();
    let text = |from, len| field(from, len).split(|&byte| byte == 0).next().unwrap_or_default();
    let checksum = octal(field(148, 8)).ok_or(TocError::Tar("its header has no checksum"))?;
    // The checksum is made with its own field as spaces.
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    let own: u64 = field(148, 8).iter().map(|&byte| u64::from(byte)).sum();
    if sum - own + 8 * u64::from(b' ') != checksum {
        return Err(TocError::Tar("its header has a wrong checksum"));
    }
    if text(0, 100) != TOC_NAME.as_bytes() || !text(345, 155).is_empty() {
        return Err(TocError::Tar("it is not named stargz.index.json"));
    }
    if !matches!(field(156, 1), b"0" | b"\0") {
        return Err(TocError::Tar("it is not a regular file"));
    }
    octal(field(124, 12)).ok_or(TocError::Tar("its header has no length"))
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = field
        .trim_ascii_start()
        .split(|byte| matches!(byte, 0 | b' '))
        .next()
        .filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

// === impl Allowance ===

impl Allowance {
    pub(super) fn new() -> Self {
        Self(Cell::new(limits::TOC_ENTRY_LEN))
    }

    /// Allows another entry.
    pub(super) fn renew(&self) {
        self.0.set(limits::TOC_ENTRY_LEN);
    }

    fn take(&self, len: u64) -> bool {
        let left = self.0.get().checked_sub(len);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }
}

// === impl Section ===

impl<R: Read> Read for Section<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = match self.inner.read(buf) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(io::Error::other(Failure::Source(error)));
            }
            result => result?,
        };
        self.left =
            self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(Failure::SectionTooLong))?;
        Ok(read)
    }
}

// === impl Payload ===

impl<R: Read> Payload<'_, R> {
    /// The digest of the JSON, all of which must have been read.
    pub(super) fn finish(self) -> Digest {
        debug_assert_eq!(self.left, 0, "invariant: the JSON parser reads to the end");
        self.hasher.finish()
    }
}

impl<R: Read> Read for Payload<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let buf = buf.get_mut(..len).unwrap_or_default();
        if buf.is_empty() {
            return Ok(0);
        }
        let read = self.gzip.read(buf)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !self.allowance.take(read as u64) {
            return Err(io::Error::other(Failure::EntryTooLong));
        }
        self.left -= read as u64;
        self.hasher.update(buf.get(..read).unwrap_or_default());
        Ok(read)
    }
}
