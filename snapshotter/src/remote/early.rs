//! Ends of blobs that were read before anybody said which table of contents is theirs.
//!
//! BuildKit names an image's layers with its first Prepare, but the digest of a layer's table of contents only with that
//! layer's own. What was read early waits here, within limits of number, bytes and age; it is verified when it is taken
//! out and the digest is known. Whatever does not fit is read again by its Prepare.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use estargz::Digest;
use parking_lot::Mutex;
use store::{SourceError, Tail};
use tokio::sync::{Semaphore, watch};

/// The limits of the holding area.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Blobs.
    pub(super) count: usize,
    /// Bytes of all of them.
    pub(super) bytes: u64,
    /// Time in it.
    pub(super) age: Duration,
    /// Bytes to read of each.
    pub(super) tail: u64,
    /// Reads at one time.
    pub(super) parallel: usize,
}

/// The holding area.
#[derive(Debug)]
pub(super) struct Early {
    limits: Limits,
    turns: Arc<Semaphore>,
    held: Mutex<HashMap<Key, Held>>,
}

/// A blob of an image: what one registry says of a blob says nothing about another registry's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) reference: String,
    pub(super) blob: Digest,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    /// What is there, or will be; counted from the start, so that the limit also holds for what is on its way.
    bytes: u64,
    state: watch::Receiver<State>,
}

#[derive(Debug, Clone)]
enum State {
    Reading,
    Read(Option<Tail>),
}

// === impl Early ===

impl Early {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(limits.parallel.max(1)));
        Arc::new(Self { limits, turns, held: Mutex::default() })
    }

    /// Has `read` read so many bytes of a blob's end, if it is not there and there is room.
    pub(super) fn begin<F>(self: &Arc<Self>, key: Key, read: impl FnOnce(u64) -> F)
    where
        F: Future<Output = Result<Tail, SourceError>> + Send + 'static,
    {
        let (sender, state) = watch::channel(State::Reading);
        {
            let mut held = self.held.lock();
            held.retain(|_, entry| entry.since.elapsed() < self.limits.age);
            let bytes: u64 = held.values().map(|entry| entry.bytes).sum();
            let full = held.len() >= self.limits.count || bytes + self.limits.tail > self.limits.bytes;
            if full || held.contains_key(&key) {
                return;
            }
            held.insert(key.clone(), Held { since: Instant::now(), bytes: self.limits.tail, state });
        }
        let (early, tail) = (Arc::clone(self), read(self.limits.tail));
        tokio::spawn(async move {
            let _turn = early.turns.acquire().await;
            let tail = tail
                .await
                .inspect_err(|error| tracing::debug!(error = error.message, "cannot read a layer early"))
                .ok();
            early.arrived(&key, tail.as_ref().map_or(0, |tail| tail.bytes.len() as u64));
            // Nobody listens if it was taken out or grew old meanwhile.
            let _ = sender.send(State::Read(tail));
            tokio::time::sleep(early.limits.age).await;
            early.held.lock().retain(|_, entry| entry.since.elapsed() < early.limits.age);
        });
    }

    /// Takes out the end of a blob, waiting for it if it is being read; none if it is not there or could not be read.
    pub(super) async fn take(&self, key: &Key) -> Option<Tail> {
        let mut state =
            self.held.lock().remove(key).filter(|held| held.since.elapsed() < self.limits.age)?.state;
        let read = state.wait_for(|state| matches!(state, State::Read(_))).await.ok()?;
        match &*read {
            State::Read(tail) => tail.clone(),
            State::Reading => None,
        }
    }

    /// How many blobs and bytes are here.
    pub(super) fn size(&self) -> (u64, u64) {
        let held = self.held.lock();
        (held.len() as u64, held.values().map(|entry| entry.bytes).sum())
    }

    fn arrived(&self, key: &Key, bytes: u64) {
        let mut held = self.held.lock();
        if bytes == 0 {
            held.remove(key);
        } else if let Some(entry) = held.get_mut(key) {
            entry.bytes = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use store::SourceErrorKind;

    use super::*;

    /// How often something was read.
    type Reads = Arc<AtomicUsize>;

    async fn half(reads: Reads, len: u64) -> Result<Tail, SourceError> {
        reads.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(Tail {
            bytes: Bytes::from(vec![7; usize::try_from(len).unwrap() / 2]),
            blob_size: 99,
            arrival: None,
        })
    }

    async fn gone(_: u64) -> Result<Tail, SourceError> {
        Err(SourceError::new(SourceErrorKind::NotFound, "gone"))
    }

    fn key(n: u8) -> Key {
        Key { reference: "r".to_owned(), blob: Digest::of(&[n]) }
    }

    const LIMITS: Limits =
        Limits { count: 3, bytes: 1000, age: Duration::from_secs(60), tail: 100, parallel: 2 };

    #[tokio::test]
    async fn what_was_read_early_is_taken_once_and_not_read_twice() {
        let (early, reads) = (Early::new(LIMITS), Reads::default());
        early.begin(key(1), |len| half(reads.clone(), len));
        early.begin(key(1), |len| half(reads.clone(), len));
        assert_eq!(early.take(&key(1)).await.unwrap().bytes.len(), 50);
        assert!(early.take(&key(1)).await.is_none());
        assert_eq!((reads.load(Ordering::SeqCst), early.size()), (1, (0, 0)));
    }

    #[tokio::test]
    async fn number_bytes_and_age_are_limited() {
        let reads = Reads::default();
        let early = Early::new(LIMITS);
        (0..5).for_each(|n| early.begin(key(n), |len| half(reads.clone(), len)));
        assert_eq!(early.size(), (3, 300));

        let early = Early::new(Limits { count: 100, ..LIMITS });
        (0..20).for_each(|n| early.begin(key(n), |len| half(reads.clone(), len)));
        assert_eq!(early.size(), (10, 1000));

        let early = Early::new(Limits { age: Duration::from_millis(30), ..LIMITS });
        early.begin(key(1), |len| half(reads.clone(), len));
        tokio::time::sleep(Duration::from_millis(120)).await;
        assert_eq!(early.size(), (0, 0));
    }

    #[tokio::test]
    async fn a_failure_leaves_nothing_behind() {
        let early = Early::new(LIMITS);
        early.begin(key(1), gone);
        assert!(early.take(&key(1)).await.is_none());
        early.begin(key(2), gone);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(early.size(), (0, 0));
    }
}
