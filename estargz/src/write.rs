//! Writing eStargz blobs: a tar stream becomes a plan, the plan independent pieces, the pieces a blob.
//!
//! No threads and no files here: a caller reads the stream once with [`Plan::read`] while it keeps the
//! uncompressed bytes, gives the [`Piece`]s of the plan to as many [`Compressor`]s as it likes, and hands
//! the results to an [`Assembler`] in order. The blob depends on the stream and the [`Options`] only, never
//! on how the work was shared out. [`build`] does all of it in memory.
//!
//! Format: `docs/estargz.md` of containerd/stargz-snapshotter.

mod assemble;
mod member;
mod piece;
mod plan;
mod tar;
mod toc;

use std::{io, num::NonZeroU64};

pub use assemble::{AssembleError, Assembler, Finished};
pub use member::{CompressError, Compressor, Level, Member};
pub use piece::{Piece, Pieces};
pub use plan::{Part, Plan, PlanError};
pub use tar::TarError;

use crate::Digest;

/// The name of the table of contents in the archive.
pub const TOC_NAME: &str = "stargz.index.json";
/// The file that ends the prioritized files.
pub const PREFETCH_LANDMARK: &str = ".prefetch.landmark";
/// The file that says that nothing is prioritized.
pub const NO_PREFETCH_LANDMARK: &str = ".no.prefetch.landmark";
/// The one byte in a landmark.
pub const LANDMARK_CONTENT: u8 = 0xf;

/// The chunk size of the Go writer, which every reader is tuned for.
const DEFAULT_CHUNK_SIZE: NonZeroU64 = NonZeroU64::MIN.saturating_add((4 << 20) - 1);

/// How to write a blob.
#[derive(Debug, Clone)]
pub struct Options {
    /// The longest chunk of a file, in bytes.
    pub chunk_size: NonZeroU64,
    /// Bytes before compression up to which files share one gzip member; 0 gives each its own. Readers older than
    /// stargz-snapshotter 0.13 do not understand shared ones.
    pub pack_size: u64,
    /// How hard to compress.
    pub level: Level,
    /// Files that are to come first, in this order, as paths from the layer's root.
    pub prioritized: Vec<String>,
}

/// Why a blob could not be built in memory.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The layer cannot be an eStargz layer.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A piece is outside the stream.
    #[error("cannot read a piece of the layer")]
    Read(#[from] io::Error),
    /// A piece could not be compressed.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The end of the blob could not be made.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
}

/// A blob in memory.
#[derive(Debug)]
pub struct Built {
    /// The blob.
    pub blob: Vec<u8>,
    /// The digest of its table of contents.
    pub toc_digest: Digest,
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
    /// Bytes of the uncompressed layer.
    pub uncompressed_size: u64,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            chunk_size: DEFAULT_CHUNK_SIZE,
            pack_size: 0,
            level: Level::default(),
            prioritized: Vec::new(),
        }
    }
}

/// Builds a blob from an uncompressed tar archive, all in memory and on this thread.
pub fn build(tar: &[u8], options: &Options) -> Result<Built, BuildError> {
    let plan = Plan::read(tar, options)?;
    let mut compressor = Compressor::new(options.level);
    let mut assembler = Assembler::new(&plan);
    let (mut blob, mut bytes) = (Vec::new(), Vec::new());
    for piece in plan.pieces() {
        piece.read(&mut bytes, |offset, target| read_slice(tar, offset, target))?;
        let member = compressor.compress(&piece, &bytes)?;
        assembler.add(&piece, &bytes, &member);
        blob.extend_from_slice(&member.bytes);
    }
    let finished = assembler.finish(&mut compressor)?;
    blob.extend_from_slice(&finished.tail);
    let Finished { toc_digest, diff_id, uncompressed_size, .. } = finished;
    Ok(Built { blob, toc_digest, diff_id, uncompressed_size })
}

fn read_slice(source: &[u8], offset: u64, target: &mut [u8]) -> io::Result<()> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let source = source.get(start..).and_then(|rest| rest.get(..target.len()));
    target.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
    Ok(())
}

#[cfg(test)]
mod tests;
