//! One layer: its blob is unpacked into a temporary file while it is hashed and planned, then its pieces are
//! compressed by the pool and written in order.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, bail};
use estargz::{
    Digest, Sha256, footer,
    toc::build_index,
    write::{Assembler, Compressor, Finished, Options, Plan, PlanError, TarError},
};

use super::pool::{Packed, Pool};
use crate::progress::Progress;

/// What became of a layer.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was written anew.
    Converted(Converted),
    /// It cannot be an eStargz layer, for this reason.
    Plain(String),
}

/// A layer that was written.
#[derive(Debug, serde::Serialize)]
pub(super) struct Converted {
    /// The digest of the blob.
    pub(super) digest: Digest,
    /// Bytes of the blob.
    pub(super) size: u64,
    pub(super) toc_digest: Digest,
    pub(super) diff_id: Digest,
    pub(super) uncompressed_size: u64,
    pub(super) entries: usize,
    pub(super) chunks: usize,
    /// Prioritized names that the layer does not have.
    pub(super) missed: Vec<String>,
}

/// What all layers of a run share.
#[derive(Debug)]
pub(super) struct Workshop {
    pub(super) pool: Pool,
    pub(super) options: Options,
    pub(super) progress: Progress,
    /// Set to stop.
    pub(super) interrupted: Arc<AtomicBool>,
}

/// Bytes that tell how a blob is compressed.
const MAGIC_LEN: u64 = 4;

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
    None,
}

// === impl Converted ===

impl Converted {
    /// What to know about the layer, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        vec![
            format!("digest      {}", self.digest),
            format!("toc digest  {}", self.toc_digest),
            format!("diff id     {}", self.diff_id),
            format!("size        {} bytes, {} entries, {} chunks", self.size, self.entries, self.chunks),
        ]
    }
}

// === impl Workshop ===

impl Workshop {
    /// Converts the blob that `source` reads, whose digest must be `expected`, and writes the result to `target`.
    pub(super) fn convert(
        &self,
        source: impl Read,
        expected: Option<Digest>,
        target: &mut impl Write,
    ) -> Result<Outcome> {
        let scratch = Arc::new(tempfile::tempfile().context("cannot make a temporary file")?);
        let plan = match self.unpack(source, expected, &scratch)? {
            Ok(plan) => plan,
            // Neither a stream that does not unpack nor a full disk is a property of the layer's content.
            Err(error @ PlanError::Tar(TarError::Read { .. })) => return Err(error.into()),
            Err(reason) => return Ok(Outcome::Plain(reason.to_string())),
        };
        let bar = self.progress.bytes("compressing".to_owned(), plan.content_bytes());
        let mut target = HashingWriter { target, hasher: Sha256::new() };
        let mut assembler = Assembler::new(&plan);
        self.pool.pack(&scratch, plan.pieces(), |packed| {
            self.check_interrupt()?;
            let Packed { piece, bytes, member } = packed;
            assembler.add(&piece, &bytes, &member);
            bar.add(bytes.len() as u64);
            target.write_all(&member.bytes).context("cannot write the converted layer")
        })?;
        let finished = assembler.finish(&mut Compressor::new(self.pool.level()))?;
        if let Some(reason) = unreadable(&finished) {
            return Ok(Outcome::Plain(reason));
        }
        target.write_all(&finished.tail).context("cannot write the converted layer")?;
        Ok(Outcome::Converted(Converted {
            digest: target.hasher.finish(),
            size: finished.blob_size,
            toc_digest: finished.toc_digest,
            diff_id: finished.diff_id,
            uncompressed_size: finished.uncompressed_size,
            entries: plan.entry_count(),
            chunks: finished.chunks,
            missed: plan.missed().to_vec(),
        }))
    }

    /// Unpacks the blob into `scratch`. A plan that cannot be made is a reason to keep the layer as it is; that
    /// the blob cannot be read or is not the one it should be ends the conversion.
    fn unpack(
        &self,
        source: impl Read,
        expected: Option<Digest>,
        scratch: &File,
    ) -> Result<Result<Plan, PlanError>> {
        let hashed = HashingReader { source, hasher: Sha256::new(), interrupted: &self.interrupted };
        let mut source = BufReader::with_capacity(1 << 20, hashed);
        let mut start = Vec::new();
        source.by_ref().take(MAGIC_LEN).read_to_end(&mut start).context("cannot read the layer")?;
        let compression = Compression::detect(&start);
        let mut buffered = start.as_slice().chain(source);
        let plan = match compression {
            Compression::Gzip => self.plan(flate2::bufread::MultiGzDecoder::new(&mut buffered), scratch),
            Compression::Zstd => self.plan(zstd::stream::read::Decoder::with_buffer(&mut buffered)?, scratch),
            Compression::None => self.plan(&mut buffered, scratch),
        };
        // A decoder may leave bytes behind, and a plan that failed does; the digest is of them all.
        io::copy(&mut buffered, &mut io::sink()).context("cannot read the layer")?;
        self.check_interrupt()?;
        let (_, source) = buffered.into_inner();
        let digest = source.into_inner().hasher.finish();
        if let Some(expected) = expected
            && digest != expected
        {
            bail!("the layer {expected} has the wrong content: its digest is {digest}");
        }
        Ok(plan)
    }

    fn plan(&self, stream: impl Read, scratch: &File) -> Result<Plan, PlanError> {
        let mut tee = Tee { stream, copy: io::BufWriter::with_capacity(1 << 20, scratch) };
        let plan = Plan::read(&mut tee, &self.options)?;
        let flushed = tee.copy.flush();
        flushed.map_err(|source| TarError::Read { offset: plan.stream_end(), source })?;
        Ok(plan)
    }

    fn check_interrupt(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) { bail!("interrupted") } else { Ok(()) }
    }
}

// === impl Compression ===

impl Compression {
    /// By the first bytes: media types are not always right.
    fn detect(start: &[u8]) -> Self {
        if start.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_frame(start) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// A zstd frame that carries no data (RFC 8878, 3.1.2), with which zstd:chunked blobs may start.
fn is_skippable_frame(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Why our own reader would refuse a layer just written: it has limits that archives do not have.
fn unreadable(finished: &Finished) -> Option<String> {
    let tail = finished.tail.as_slice();
    let place = finished.blob_size.checked_sub(tail.len() as u64)?;
    let footer = footer::parse(tail.get(tail.len().saturating_sub(footer::MAX_LEN)..)?, finished.blob_size);
    let built = footer.map_err(|error| error.to_string()).and_then(|footer| {
        let section = tail.len().saturating_sub(usize::try_from(footer.len).unwrap_or(0));
        let section = tail.get(..section).unwrap_or_default();
        build_index(section, place, finished.blob_size).map_err(|error| error.to_string())
    });
    match built {
        Ok(built) if built.toc_digest == finished.toc_digest => None,
        Ok(_) => Some("its table of contents does not come back as it was written".to_owned()),
        Err(reason) => Some(reason),
    }
}

struct HashingReader<'a, R> {
    source: R,
    hasher: Sha256,
    interrupted: &'a AtomicBool,
}

impl<R: Read> Read for HashingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        let read = self.source.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

struct HashingWriter<W> {
    target: W,
    hasher: Sha256,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.target.write_all(data)?;
        self.hasher.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

/// Reads a stream and keeps a copy of what was read.
struct Tee<R, W> {
    stream: R,
    copy: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.copy.write_all(buffer.get(..read).unwrap_or_default())?;
        Ok(read)
    }
}
