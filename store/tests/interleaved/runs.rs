//! Readers and those who store, as `layer/miss.rs` and `layer/arrive.rs` have them.

use std::sync::{
    Arc,
    atomic::Ordering::{Relaxed, SeqCst},
};

use estargz::ChunkId;
use loom::{sync::atomic::AtomicU64, thread};
use tokio::sync::oneshot::error::TryRecvError;

use crate::{
    ReadError,
    bits::Bits,
    fetch::{
        in_flight::{InFlight, Outcome},
        window::Window,
    },
    holes::Holes,
};

const CHUNK: ChunkId = ChunkId(0);

/// Bytes that were written are 1.
#[test]
fn whoever_sees_a_bit_or_all_of_them_sees_the_bytes() {
    loom::model(|| {
        let bits = Arc::new(Bits::new(&[0], 2, 0));
        let content = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let writers = [0, 1].map(|at| {
            let (bits, content) = (Arc::clone(&bits), Arc::clone(&content));
            thread::spawn(move || {
                content[at].store(1, Relaxed);
                assert!(bits.add(ChunkId(at as u32), 10));
            })
        });
        if bits.is_complete() {
            assert!(content.iter().all(|bytes| bytes.load(Relaxed) == 1));
        }
        for at in [0, 1] {
            if bits.has(ChunkId(at)) {
                assert_eq!(content[at as usize].load(Relaxed), 1);
            }
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert!(bits.is_complete() && bits.bytes() == 20 && bits.present() == 2);
    });
}

/// A chunk is given back and fetched again, as `layer/give_back.rs` and `layer/read.rs` have it.
#[test]
fn whoever_saw_a_bit_and_nothing_given_back_has_the_bytes() {
    loom::model(|| {
        let (bits, holes) = (Arc::new(Bits::new(&[1], 1, 1)), Arc::new(Holes::default()));
        let content = Arc::new(AtomicU64::new(1));
        let giver = thread::spawn({
            let (bits, holes, content) = (Arc::clone(&bits), Arc::clone(&holes), Arc::clone(&content));
            move || {
                bits.remove(CHUNK, 1);
                holes.follow();
                content.store(0, Relaxed);
                content.store(1, Relaxed);
                assert!(bits.add(CHUNK, 1));
            }
        });
        for here in [Bits::is_complete, |bits: &Bits| bits.has(CHUNK)] {
            let before = holes.before();
            let bytes = here(&bits).then(|| content.load(Relaxed));
            if holes.none_since(before) {
                assert_ne!(bytes, Some(0), "a hole was read");
            }
        }
        giver.join().unwrap();
    });
}

/// A layer with one chunk.
#[derive(Default)]
struct Host {
    in_flight: InFlight,
    bits: Option<Bits>,
    content: AtomicU64,
    asked: AtomicU64,
    fetching: AtomicU64,
}

impl Host {
    fn new() -> Arc<Self> {
        Arc::new(Self { bits: Some(Bits::new(&[0], 1, 0)), ..Self::default() })
    }

    fn bits(&self) -> &Bits {
        self.bits.as_ref().unwrap()
    }

    /// Reads the chunk; the first request of all is given up if `fails`.
    fn read(&self, fails: bool) -> Result<(), ()> {
        let (waiting, window) = {
            let mut table = self.in_flight.lock();
            if self.bits().has(CHUNK) {
                (None, None)
            } else {
                let window = (!table.has(CHUNK)).then(|| Arc::new(Window(CHUNK)));
                window.iter().for_each(|window| table.insert(window));
                (Some(table.join(CHUNK).unwrap().waiting), window)
            }
        };
        if let Some(window) = window {
            self.fetch(&window, fails);
        }
        if let Some(mut waiting) = waiting {
            loop {
                match waiting.try_recv() {
                    Ok(Outcome::Stored) => break,
                    Ok(Outcome::Failed(_)) => return Err(()),
                    Ok(Outcome::Held(_)) => panic!("everything can be stored"),
                    Err(TryRecvError::Empty) => thread::yield_now(),
                    Err(TryRecvError::Closed) => panic!("nobody told"),
                }
            }
        }
        assert!(self.bits().has(CHUNK));
        assert_eq!(self.content.load(Relaxed), 1, "a bit before its bytes");
        Ok(())
    }

    fn fetch(&self, window: &Arc<Window>, fails: bool) {
        assert_eq!(self.fetching.fetch_add(1, SeqCst), 0, "the chunk is fetched twice at once");
        let first = self.asked.fetch_add(1, SeqCst) == 0;
        if fails && first {
            self.fetching.fetch_sub(1, SeqCst);
            return self.in_flight.abandon(window, &ReadError::Closed);
        }
        self.content.store(1, Relaxed);
        self.bits().add(CHUNK, 1);
        self.fetching.fetch_sub(1, SeqCst);
        self.in_flight.settle(CHUNK, || Outcome::Stored);
    }
}

fn readers(fails: bool) -> (Arc<Host>, usize) {
    let host = Host::new();
    let other = thread::spawn({
        let host = Arc::clone(&host);
        move || host.read(fails)
    });
    let read = [host.read(fails), other.join().unwrap()];
    assert_eq!(host.in_flight.len(), 0);
    (host, read.iter().filter(|read| read.is_err()).count())
}

#[test]
fn a_chunk_is_fetched_once_and_everyone_is_woken() {
    loom::model(|| {
        let (host, failed) = readers(false);
        assert_eq!((host.asked.load(SeqCst), failed), (1, 0));
    });
}

#[test]
fn a_request_that_is_given_up_wakes_those_who_joined_it_and_the_next_asks_again() {
    loom::model(|| {
        let (host, failed) = readers(true);
        // The one that asked first, and the other if it had joined.
        assert_eq!(host.asked.load(SeqCst) as usize + failed, 3);
    });
}
