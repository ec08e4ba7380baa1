//! Putting compressed pieces together: places, table of contents, footer, digests.

use std::io::{self, Write};

use super::{
    TOC_NAME,
    member::{CompressError, Compressor, Member, chunk},
    piece::Piece,
    plan::{Entry, Plan},
    tar::{BLOCK, Header, Kind, header_blocks, padding},
    toc::{LastNames, PlacedChunk, TocEntry, TocWriter},
};
use crate::{Digest, Sha256};

/// Why the end of a blob could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Compressing failed.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// Fewer or more pieces were added than the plan has.
    #[error("the pieces added to the blob are not those of its plan")]
    Pieces,
    /// The table of contents could not be written.
    #[error("cannot write the table of contents")]
    Toc(#[source] io::Error),
}

/// Takes the compressed pieces of a plan in order. The caller writes the members themselves.
#[derive(Debug)]
pub struct Assembler<'plan> {
    plan: &'plan Plan,
    compressed: u64,
    uncompressed: u64,
    diff: Sha256,
    chunks: Vec<PlacedChunk>,
    /// The digest so far of a file of several chunks.
    file: Option<Sha256>,
    /// The digests of files of several chunks, in order.
    files: Vec<Digest>,
}

/// The end of a blob, and what to say about the whole of it.
#[derive(Debug)]
pub struct Finished {
    /// Table of contents and footer, to be written after the last member.
    pub tail: Vec<u8>,
    /// Bytes of the whole blob.
    pub blob_size: u64,
    /// The digest of the table of contents, for the layer's annotation.
    pub toc_digest: Digest,
    /// The digest of the uncompressed layer, for the image's configuration.
    pub diff_id: Digest,
    /// Bytes of the uncompressed layer.
    pub uncompressed_size: u64,
    /// Chunks in the table of contents.
    pub chunks: usize,
}

// === impl Assembler ===

impl<'plan> Assembler<'plan> {
    /// Starts a blob.
    pub fn new(plan: &'plan Plan) -> Self {
        Self {
            plan,
            compressed: 0,
            uncompressed: 0,
            diff: Sha256::new(),
            chunks: Vec::new(),
            file: None,
            files: Vec::new(),
        }
    }

    /// Adds the next piece: its bytes before and after compression.
    pub fn add(&mut self, piece: &Piece, bytes: &[u8], member: &Member) {
        for (slot, &digest) in piece.slots.iter().zip(&member.digests) {
            self.chunks.push(PlacedChunk {
                offset: self.compressed,
                inner_offset: slot.inner_offset,
                file_offset: slot.file_offset,
                size: if slot.full { slot.len } else { 0 },
                last: slot.last,
                digest,
            });
            // The digest of a file of one chunk is that chunk's.
            if slot.file_offset == 0 && slot.last {
                continue;
            }
            let file = self.file.get_or_insert_default();
            file.update(chunk(bytes, slot));
            if slot.last {
                self.files.extend(self.file.take().map(Sha256::finish));
            }
        }
        self.diff.update(bytes);
        self.uncompressed += bytes.len() as u64;
        self.compressed += member.bytes.len() as u64;
    }

    /// Makes the end of the blob.
    pub fn finish(mut self, compressor: &mut Compressor) -> Result<Finished, AssembleError> {
        let json = self.table()?;
        let toc_digest = Digest::of(&json);
        let mut header = Header::regular(TOC_NAME, json.len() as u64);
        header.mode = 0o444;
        let mut tar = header_blocks(&header);
        tar.extend_from_slice(&json);
        // The two blocks of zeros that end an archive end this last member of it.
        tar.resize(tar.len() + (padding(json.len() as u64) + 2 * BLOCK) as usize, 0);
        drop(json);
        self.diff.update(&tar);
        let mut tail = compressor.gzip(&tar)?;
        tail.extend_from_slice(&footer(self.compressed));
        Ok(Finished {
            blob_size: self.compressed + tail.len() as u64,
            tail,
            toc_digest,
            uncompressed_size: self.uncompressed + tar.len() as u64,
            diff_id: self.diff.finish(),
            chunks: self.chunks.len(),
        })
    }

    fn table(&self) -> Result<Vec<u8>, AssembleError> {
        let mut chunks = self.chunks.iter();
        let mut files = self.files.iter();
        let mut names = LastNames::default();
        let mut toc = TocWriter::new(Vec::new()).map_err(AssembleError::Toc)?;
        for entry in self.plan.entries() {
            let mut first = TocEntry::new(entry, &mut names);
            if entry.header.size > 0 {
                add_file(&mut toc, entry, first, &mut chunks, &mut files)?;
                continue;
            }
            if entry.header.kind == Kind::Regular {
                first.set_digest(Digest::of(&[]));
            }
            toc.add(&first).map_err(AssembleError::Toc)?;
        }
        if chunks.next().is_some() || self.file.is_some() {
            return Err(AssembleError::Pieces);
        }
        toc.finish().map_err(AssembleError::Toc)
    }
}

/// Adds a file that is not empty, with its chunks.
fn add_file<'a>(
    toc: &mut TocWriter<impl Write>,
    entry: &'a Entry,
    mut first: TocEntry<'a>,
    chunks: &mut std::slice::Iter<'_, PlacedChunk>,
    files: &mut std::slice::Iter<'_, Digest>,
) -> Result<(), AssembleError> {
    let mut chunk = chunks.next().ok_or(AssembleError::Pieces)?;
    let digest = if chunk.last { &chunk.digest } else { files.next().ok_or(AssembleError::Pieces)? };
    first.set_digest(*digest);
    first.set_chunk(chunk);
    toc.add(&first).map_err(AssembleError::Toc)?;
    while !chunk.last {
        chunk = chunks.next().ok_or(AssembleError::Pieces)?;
        toc.add(&TocEntry::chunk(entry, chunk)).map_err(AssembleError::Toc)?;
    }
    Ok(())
}

/// The footer: an empty gzip member whose extra field `SG` holds the place of the table of contents.
fn footer(toc_offset: u64) -> Vec<u8> {
    let field = format!("{toc_offset:016x}STARGZ");
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0];
    footer.extend_from_slice(field.as_bytes());
    // A last, stored, empty deflate block; then checksum and length of nothing.
    footer.extend_from_slice(&[1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    footer
}
