//! The threads that compress, shared by all layers that are being converted.
//!
//! Work is handed out in batches. A batch holds a permit from when it is made until it has been written, so
//! the number of permits bounds the memory of all layers together. Whoever has batches under way takes
//! finished ones rather than wait for a permit, so somebody can always go on.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use estargz::write::{CompressError, Compressor, Level, Member, Piece};
use parking_lot::{Condvar, Mutex};

/// Pieces are handed out together up to this many bytes: one hand-over costs as much as compressing 1 KiB.
const BATCH_BYTES: u64 = 1 << 20;

/// A piece with its bytes before and after compression.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) piece: Piece,
    pub(super) bytes: Vec<u8>,
    pub(super) member: Member,
}

/// Why a batch failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    #[error("cannot read the uncompressed layer")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Compress(#[from] CompressError),
}

/// A batch that is done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) number: usize,
    pub(super) result: Result<Vec<Packed>, PackError>,
    /// Given back when the batch has been written.
    _permit: Permit,
}

struct Job {
    number: usize,
    pieces: Vec<Piece>,
    source: Arc<File>,
    reply: Sender<Done>,
    permit: Permit,
}

/// The threads.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    permits: Arc<Permits>,
    level: Level,
}

#[derive(Debug)]
struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

#[derive(Debug)]
struct Permit(Arc<Permits>);

// === impl Pool ===

impl Pool {
    /// Starts `threads` threads that compress at `level`.
    pub(super) fn start(threads: usize, level: Level) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let start = |number| {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name(format!("compress-{number}")).spawn(move || work(&queue, level))
        };
        let threads: Vec<_> = (0..threads.max(1)).map(start).collect::<io::Result<_>>()?;
        let free = threads.len() * 2 + 2;
        let permits = Arc::new(Permits { free: Mutex::new(free), freed: Condvar::new() });
        Ok(Self { jobs: Some(jobs), threads, permits, level })
    }

    /// The level that pieces are compressed at.
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Compresses `pieces` of `source` and gives them to `write` in order.
    pub(super) fn pack<E: From<PackError>>(
        &self,
        source: &Arc<File>,
        mut pieces: impl Iterator<Item = Piece>,
        mut write: impl FnMut(Packed) -> Result<(), E>,
    ) -> Result<(), E> {
        let (reply, done) = channel();
        let mut waiting = std::collections::BTreeMap::new();
        let (mut sent, mut written) = (0, 0);
        let mut batch = next_batch(&mut pieces);
        loop {
            if !batch.is_empty()
                && let Some(permit) = Permits::take(&self.permits, sent == written)
            {
                let pieces = std::mem::replace(&mut batch, next_batch(&mut pieces));
                self.send(Job {
                    number: sent,
                    pieces,
                    source: Arc::clone(source),
                    reply: reply.clone(),
                    permit,
                });
                sent += 1;
                continue;
            }
            if sent == written {
                return Ok(());
            }
            let finished: Done = receive(&done)?;
            waiting.insert(finished.number, finished);
            while let Some(next) = waiting.remove(&written) {
                next.result?.into_iter().try_for_each(&mut write)?;
                written += 1;
            }
        }
    }

    fn send(&self, job: Job) {
        // The threads live as long as the pool, and a job that cannot be sent is noticed as a missing reply.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

// === impl Permits ===

impl Permits {
    /// Takes a permit; waits for one only if `wait`.
    fn take(permits: &Arc<Self>, wait: bool) -> Option<Permit> {
        let mut free = permits.free.lock();
        while *free == 0 {
            if !wait {
                return None;
            }
            permits.freed.wait(&mut free);
        }
        *free -= 1;
        Some(Permit(Arc::clone(permits)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}

fn next_batch(pieces: &mut impl Iterator<Item = Piece>) -> Vec<Piece> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while bytes < BATCH_BYTES
        && let Some(piece) = pieces.next()
    {
        bytes += piece.len();
        batch.push(piece);
    }
    batch
}

fn receive(done: &Receiver<Done>) -> Result<Done, PackError> {
    // This thread keeps a sender, so only a lost job would end in waiting; a thread that dies drops its job and
    // with it the permit, never the channel. Threads do not panic: they only compress.
    done.recv().map_err(|_| PackError::Read(io::Error::from(io::ErrorKind::BrokenPipe)))
}

fn work(queue: &Mutex<Receiver<Job>>, level: Level) {
    let mut compressor = Compressor::new(level);
    loop {
        let next = queue.lock().recv();
        let Ok(job) = next else { return };
        let pack = |piece| pack_one(&mut compressor, piece, &job.source);
        let result = job.pieces.into_iter().map(pack).collect();
        // Nobody waits any more when the layer failed or was given up.
        let _ = job.reply.send(Done { number: job.number, result, _permit: job.permit });
    }
}

fn pack_one(compressor: &mut Compressor, piece: Piece, source: &File) -> Result<Packed, PackError> {
    let mut bytes = Vec::new();
    piece.read(&mut bytes, |offset, target| source.read_exact_at(target, offset))?;
    let member = compressor.compress(&piece, &bytes)?;
    Ok(Packed { piece, bytes, member })
}
