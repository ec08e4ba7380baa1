//! Which chunks are here and verified: bits in memory, and bits on disk that follow.
//!
//! The bits in memory are the truth while the layer is open. A bit on disk is written only after the content that it
//! stands for was synced, so that after a crash a chunk is fetched again and never served as zeros. Bits on disk are
//! taken away only while their content is still there, so that a word which was half written is some mixture of two true
//! ones.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use estargz::ChunkId;
use parking_lot::Mutex;

use crate::Disk;

const MAGIC: &[u8; 8] = b"starlchk";
/// Magic, version, number of chunks, bytes present.
const HEADER_LEN: u64 = 24;
const VERSION: u32 = 1;
const BITS: u32 = u64::BITS;

/// The chunk map of a layer, and its file.
pub(crate) struct ChunkMap {
    words: Box<[AtomicU64]>,
    count: u32,
    present: AtomicU64,
    bytes: AtomicU64,
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
        let present = recorded.words.iter().map(|word| u64::from(word.count_ones())).sum();
        Ok(Self {
            words: recorded.words.iter().copied().map(AtomicU64::new).collect(),
            count,
            present: AtomicU64::new(present),
            bytes: AtomicU64::new(recorded.bytes),
            file,
            disk,
            recorded: Mutex::new(recorded),
        })
    }

    /// Whether the chunk is here. If so, its bytes in the content file were written before.
    pub(crate) fn has(&self, chunk: ChunkId) -> bool {
        let word = self.words.get((chunk.0 / BITS) as usize);
        word.is_some_and(|word| word.load(Acquire) & bit(chunk.0) != 0)
    }

    /// To be called once the chunk's `len` bytes were verified and written. Says whether that is news.
    pub(crate) fn add(&self, chunk: ChunkId, len: u64) -> bool {
        let Some(word) = self.words.get((chunk.0 / BITS) as usize) else { return false };
        let news = word.fetch_or(bit(chunk.0), Release) & bit(chunk.0) == 0;
        if news {
            self.present.fetch_add(1, Relaxed);
            self.bytes.fetch_add(len, Relaxed);
        }
        news
    }

    /// To be called when the chunk's bytes, `len` of them, are not to be trusted any more. If it was recorded, [`Self::forget`]
    /// comes next.
    pub(crate) fn remove(&self, chunk: ChunkId, len: u64) {
        let Some(word) = self.words.get((chunk.0 / BITS) as usize) else { return };
        if word.fetch_and(!bit(chunk.0), Release) & bit(chunk.0) != 0 {
            self.present.fetch_sub(1, Relaxed);
            self.bytes.fetch_sub(len, Relaxed);
        }
    }

    /// The first chunk from `from` on that is here.
    pub(crate) fn first_present(&self, from: u32) -> Option<u32> {
        let mut chunk = from;
        while chunk < self.count {
            let here = self.words.get((chunk / BITS) as usize)?.load(Acquire) >> (chunk % BITS);
            if here != 0 {
                return Some(chunk + here.trailing_zeros()).filter(|&chunk| chunk < self.count);
            }
            chunk = (chunk / BITS + 1) * BITS;
        }
        None
    }

    /// The first chunk from `from` on that is not here.
    pub(crate) fn first_missing(&self, from: u32) -> Option<u32> {
        let mut chunk = from;
        while chunk < self.count {
            let word = self.words.get((chunk / BITS) as usize)?.load(Acquire);
            let missing = !word >> (chunk % BITS);
            if missing != 0 {
                return Some(chunk + missing.trailing_zeros()).filter(|&chunk| chunk < self.count);
            }
            chunk = (chunk / BITS + 1) * BITS;
        }
        None
    }

    /// Number of chunks that are here.
    pub(crate) fn present(&self) -> u64 {
        self.present.load(Relaxed)
    }

    /// Bytes of the chunks that are here.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.present() >= u64::from(self.count)
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

impl fmt::Debug for ChunkMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkMap")
            .field("count", &self.count)
            .field("present", &self.present)
            .finish_non_exhaustive()
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
