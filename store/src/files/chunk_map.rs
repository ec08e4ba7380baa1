//! Which chunks are here and verified: bits in memory, and bits on disk that follow.
//!
//! The bits in memory are the truth while the layer is open. A bit on disk is written only after the content that it
//! stands for was synced, so that after a crash a chunk is fetched again and never served as zeros. Bits on disk are
//! taken away only while their content is still there, so that a word which was half written is some mixture of two true
//! ones.

pub(crate) mod bits;

use std::{collections::BTreeSet, fmt, fs::File, io, ops::Deref, os::unix::fs::FileExt, sync::Arc};

use parking_lot::Mutex;

use self::bits::Bits;
use crate::Disk;

const MAGIC: &[u8; 8] = b"starlchk";
/// Magic, version, number of chunks, bytes present.
const HEADER_LEN: u64 = 24;
const VERSION: u32 = 1;
const BITS: u32 = u64::BITS;

/// The chunk map of a layer, and its file.
pub(crate) struct ChunkMap {
    bits: Bits,
    count: u32,
    file: File,
    disk: Arc<dyn Disk>,
    recorded: Mutex<Recorded>,
}

/// What the file says, or what is about to be written to it.
#[derive(Debug, Default)]
struct Recorded {
    words: Vec<u64>,
    bytes: u64,
}

/// Chunks that were verified and written, but not synced yet.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) chunks: Vec<u32>,
    pub(crate) bytes: u64,
}

// === impl ChunkMap ===

impl ChunkMap {
    /// Writes the file of a layer that has none of its `count` chunks.
    pub(crate) fn create(disk: &dyn Disk, file: &File, count: u32) -> io::Result<()> {
        disk.set_len(file, 0)?;
        disk.write(file, &header(count, 0), 0)?;
        disk.set_len(file, file_len(count))
    }

    /// Reads the file of a layer with `count` chunks. A file of another form counts as empty, since all that it
    /// says can be fetched again.
    pub(crate) fn open(disk: Arc<dyn Disk>, file: File, count: u32) -> io::Result<Self> {
        let mut recorded = Recorded { words: vec![0; words(count)], bytes: 0 };
        if file.metadata()?.len() == file_len(count) {
            let mut bytes = vec![0; file_len(count) as usize];
            file.read_exact_at(&mut bytes, 0)?;
            if let Some(read) = Recorded::parse(&bytes, count) {
                recorded = read;
            }
        }
        if recorded.bytes == 0 {
            Self::create(disk.as_ref(), &file, count)?;
            recorded.words.fill(0);
        }
        let bits = Bits::new(&recorded.words, count, recorded.bytes);
        Ok(Self { bits, count, file, disk, recorded: Mutex::new(recorded) })
    }

    /// Makes the file say that `chunks`, which [`Self::remove`] was called for, are not here, and waits until that is on
    /// disk: their bytes may be given up then.
    pub(crate) fn forget(&self, chunks: &Batch) -> io::Result<()> {
        let mut recorded = self.recorded.lock();
        let (mut touched, mut known) = (BTreeSet::new(), false);
        for &chunk in &chunks.chunks {
            if let Some(word) = recorded.words.get_mut((chunk / BITS) as usize) {
                known |= *word & bit(chunk) != 0;
                *word &= !bit(chunk);
                touched.insert(chunk / BITS);
            }
        }
        if known {
            recorded.bytes = recorded.bytes.saturating_sub(chunks.bytes);
        }
        self.write(&recorded, touched)
    }

    /// Writes the bits of a batch whose content was synced, and syncs them.
    pub(crate) fn record(&self, batch: &Batch) -> io::Result<()> {
        let mut recorded = self.recorded.lock();
        recorded.bytes += batch.bytes;
        let touched = batch.chunks.iter().map(|chunk| chunk / BITS).collect();
        for &chunk in &batch.chunks {
            if let Some(word) = recorded.words.get_mut((chunk / BITS) as usize) {
                *word |= bit(chunk);
            }
        }
        self.write(&recorded, touched)
    }

    fn write(&self, recorded: &Recorded, touched: BTreeSet<u32>) -> io::Result<()> {
        for word in touched {
            let Some(value) = recorded.words.get(word as usize) else { continue };
            self.disk.write(&self.file, &value.to_le_bytes(), HEADER_LEN + u64::from(word) * 8)?;
        }
        self.disk.write(&self.file, &header(self.count, recorded.bytes), 0)?;
        self.disk.sync(&self.file)
    }
}

impl Deref for ChunkMap {
    type Target = Bits;

    fn deref(&self) -> &Bits {
        &self.bits
    }
}

impl fmt::Debug for ChunkMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkMap").field("bits", &self.bits).finish_non_exhaustive()
    }
}

// === impl Recorded ===

impl Recorded {
    fn parse(file: &[u8], count: u32) -> Option<Self> {
        let (head, words) = file.split_at_checked(HEADER_LEN as usize)?;
        let bytes = u64::from_le_bytes(*head.last_chunk()?);
        if head != header(count, bytes) {
            return None;
        }
        let mut words: Vec<u64> = words.as_chunks().0.iter().copied().map(u64::from_le_bytes).collect();
        // Bits beyond the last chunk mean nothing.
        if let Some(last) = words.last_mut().filter(|_| !count.is_multiple_of(BITS)) {
            *last &= bit(count) - 1;
        }
        Some(Self { words, bytes })
    }
}

fn bit(chunk: u32) -> u64 {
    1 << (chunk % BITS)
}

fn words(count: u32) -> usize {
    count.div_ceil(BITS) as usize
}

fn file_len(count: u32) -> u64 {
    HEADER_LEN + words(count) as u64 * 8
}

fn header(count: u32, bytes: u64) -> [u8; HEADER_LEN as usize] {
    let mut header = [0; HEADER_LEN as usize];
    let fields = MAGIC.iter().copied().chain(VERSION.to_le_bytes()).chain(count.to_le_bytes());
    header.iter_mut().zip(fields.chain(bytes.to_le_bytes())).for_each(|(place, byte)| *place = byte);
    header
}

#[cfg(test)]
mod tests;
