//! A source in memory, with faults and delays that tests script.

use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use estargz::ChunkId;
use futures_util::{StreamExt, future, stream};
use parking_lot::Mutex;
use store::{
    Arrival, BlobSource, ByteStream, Class, Layer, LayerKey, SourceError, SourceErrorKind, Store,
    StoreConfig, Tail,
};

use crate::blob::Blob;

/// What goes wrong with a read of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The origin is down.
    Down,
    /// The answer never comes.
    Hang,
    /// This many bytes come, then nothing.
    HangAfter(usize),
    /// The body ends after this many bytes, without an error.
    CutAfter(usize),
    /// Reading the end of the blob panics.
    Panic,
    /// The byte at this offset of the blob is another one.
    Flip(u64),
}

/// A blob in memory.
pub(crate) struct Memory {
    blob: Bytes,
    pub(crate) state: Mutex<State>,
    pub(crate) distrusted: AtomicU64,
    pub(crate) tails: AtomicU64,
}

pub(crate) struct State {
    pub(crate) fault: Fault,
    /// Faults for the next reads, before `fault`.
    pub(crate) next: Vec<Fault>,
    /// A flipped bit is gone once the source was told.
    pub(crate) honest_once_distrusted: bool,
    pub(crate) latency: Duration,
    pub(crate) per_piece: Duration,
    /// What the pieces travel over, if that is bounded.
    pub(crate) wire: Option<Arc<Wire>>,
    pub(crate) log: Vec<(Range<u64>, Class)>,
}

const PIECE: usize = 16 << 10;

/// A link that sources share: it carries one piece at a time.
pub(crate) struct Wire {
    per_piece: Duration,
    free_at: Mutex<Instant>,
}

impl Wire {
    pub(crate) fn new(per_piece: Duration) -> Arc<Self> {
        Arc::new(Self { per_piece, free_at: Mutex::new(Instant::now()) })
    }

    async fn carry(&self) {
        let done = {
            let mut free_at = self.free_at.lock();
            *free_at = (*free_at).max(Instant::now()) + self.per_piece;
            *free_at
        };
        tokio::time::sleep_until(done.into()).await;
    }
}

impl Memory {
    pub(crate) fn new(blob: &Blob) -> Arc<Self> {
        Arc::new(Self {
            blob: blob.bytes.clone(),
            state: Mutex::new(State {
                fault: Fault::None,
                next: Vec::new(),
                honest_once_distrusted: false,
                latency: Duration::ZERO,
                per_piece: Duration::ZERO,
                wire: None,
                log: Vec::new(),
            }),
            distrusted: AtomicU64::new(0),
            tails: AtomicU64::new(0),
        })
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.state.lock().fault = fault;
    }

    pub(crate) fn requests(&self) -> Vec<(Range<u64>, Class)> {
        self.state.lock().log.clone()
    }
}

#[async_trait]
impl BlobSource for Memory {
    async fn read_tail(&self, len: u64) -> Result<Tail, SourceError> {
        self.tails.fetch_add(1, SeqCst);
        let latency = self.state.lock().latency;
        tokio::time::sleep(latency).await;
        assert!(!matches!(self.state.lock().fault, Fault::Panic), "as the test wants it");
        let start = self.blob.len().saturating_sub(len as usize);
        let (bytes, blob_size) = (self.blob.slice(start..), self.blob.len() as u64);
        let Some(wire) = self.state.lock().wire.clone() else {
            return Ok(Tail { bytes, blob_size, arrival: None });
        };
        let asked = Instant::now();
        for _ in 0..bytes.len().div_ceil(PIECE) {
            wire.carry().await;
        }
        let arrival = Arrival { asked, time: asked..Instant::now(), bytes: bytes.len() as u64 };
        Ok(Tail { bytes, blob_size, arrival: Some(arrival) })
    }

    async fn read_range(&self, range: Range<u64>, class: Class) -> Result<ByteStream, SourceError> {
        let (fault, latency, per_piece, wire) = {
            let mut state = self.state.lock();
            state.log.push((range.clone(), class));
            let fault = if state.next.is_empty() { state.fault } else { state.next.remove(0) };
            let honest = state.honest_once_distrusted && self.distrusted.load(SeqCst) > 0;
            (if honest { Fault::None } else { fault }, state.latency, state.per_piece, state.wire.clone())
        };
        tokio::time::sleep(latency).await;
        let mut bytes = self.blob.slice(range.start as usize..range.end as usize);
        let mut hangs = false;
        match fault {
            Fault::None | Fault::Panic => {}
            Fault::Down => return Err(SourceError::new(SourceErrorKind::Unavailable, "the origin is down")),
            Fault::Hang => return future::pending().await,
            Fault::HangAfter(len) => {
                bytes.truncate(len);
                hangs = true;
            }
            Fault::CutAfter(len) => bytes.truncate(len),
            Fault::Flip(at) if range.contains(&at) => {
                let mut flipped = bytes.to_vec();
                flipped[(at - range.start) as usize] ^= 0x10;
                bytes = flipped.into();
            }
            Fault::Flip(_) => {}
        }
        let pieces: Vec<_> = (0..bytes.len())
            .step_by(PIECE)
            .map(|start| Ok(bytes.slice(start..(start + PIECE).min(bytes.len()))))
            .collect();
        let pieces = stream::iter(pieces).then(move |piece| {
            let wire = wire.clone();
            async move {
                if !per_piece.is_zero() {
                    tokio::time::sleep(per_piece).await;
                }
                if let Some(wire) = wire {
                    wire.carry().await;
                }
                piece
            }
        });
        Ok(if hangs { pieces.chain(stream::pending()).boxed() } else { pieces.boxed() })
    }

    fn distrust(&self) {
        self.distrusted.fetch_add(1, SeqCst);
    }

    fn describe(&self) -> String {
        format!("memory of {} bytes", self.blob.len())
    }
}

/// A store in a directory of its own.
pub(crate) struct Dir(pub(crate) tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Small windows, short waits, no recording unless asked for.
    pub(crate) fn config(&self) -> StoreConfig {
        StoreConfig {
            min_window: 64 << 10,
            max_window: 1 << 20,
            background_window: 256 << 10,
            read_timeout: Duration::from_secs(10),
            flush_interval: Duration::from_secs(3600),
            ..StoreConfig::new(self.0.path())
        }
    }

    pub(crate) fn open(&self) -> Arc<Store> {
        Store::open(self.config()).unwrap()
    }

    /// The directory of a layer.
    pub(crate) fn files(&self, key: LayerKey) -> PathBuf {
        self.0.path().join("layers").join(key.to_string())
    }

    /// The chunks that have a bit on disk. Each must have its bytes there too.
    pub(crate) fn recorded(&self, layer: &Layer) -> BTreeSet<u32> {
        let files = self.files(layer.key());
        let (chunks, content) =
            (fs::read(files.join("chunks")).unwrap(), fs::read(files.join("content")).unwrap());
        let has = |id: &u32| chunks[24 + *id as usize / 8] >> (id % 8) & 1 == 1;
        let there: BTreeSet<u32> = (0..layer.index().chunk_count()).filter(has).collect();
        for &id in &there {
            let chunk = layer.index().chunk(ChunkId(id)).unwrap();
            let bytes = &content[chunk.content_offset as usize..][..chunk.len as usize];
            estargz::decode::verify(bytes, &chunk.digest)
                .unwrap_or_else(|error| panic!("chunk {id} has a bit and not its bytes: {error}"));
        }
        there
    }
}

/// Everything that was taken is given back.
pub(crate) async fn settled(store: &Arc<Store>) {
    for _ in 0..300 {
        if store.memory_in_use() == 0 && store.layers().iter().all(|layer| layer.chunks_in_flight() == 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} bytes are still in use", store.memory_in_use());
}
