//! The background's turns: what it may have in flight, over the whole store.
//!
//! Requests of full length are counted. Of short ones, as the stretches between what a plan fetched are, so many may be in
//! flight as have the bytes of those: one after another they would leave the link empty for most of each round trip.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// As many short requests as this for each of full length.
const SHORT: usize = 8;

/// The turns.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Requests of full length.
    requests: usize,
    /// What a request of full length brings, in bytes.
    length: u64,
    taken: Mutex<Taken>,
    given_back: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    requests: usize,
    bytes: u64,
}

/// A request's turn; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    bytes: u64,
}

// === impl Turns ===

impl Turns {
    /// Turns for `requests` of `length` bytes each.
    pub(crate) fn new(requests: usize, length: u64) -> Arc<Self> {
        let (taken, given_back) = Default::default();
        Arc::new(Self { requests: requests.max(1), length, taken, given_back })
    }

    /// Waits for a turn, for a request that is of full length until more is known. To be called by one task only.
    pub(crate) async fn next(self: &Arc<Self>) -> Turn {
        loop {
            if let Some(turn) = self.try_next() {
                return turn;
            }
            self.given_back.notified().await;
        }
    }

    fn try_next(self: &Arc<Self>) -> Option<Turn> {
        let mut taken = self.taken.lock();
        let together = self.length.saturating_mul(self.requests as u64);
        let is_short_of_it = taken.bytes.saturating_add(self.length) <= together;
        let free =
            taken.requests < self.requests || (taken.requests < self.requests * SHORT && is_short_of_it);
        free.then(|| {
            taken.requests += 1;
            taken.bytes += self.length;
            Turn { turns: Arc::clone(self), bytes: self.length }
        })
    }
}

// === impl Turn ===

impl Turn {
    /// The request will bring so many bytes.
    pub(crate) fn of_length(mut self, bytes: u64) -> Self {
        {
            let mut taken = self.turns.taken.lock();
            taken.bytes = taken.bytes - self.bytes + bytes;
        }
        self.bytes = bytes;
        self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        {
            let mut taken = self.turns.taken.lock();
            taken.requests -= 1;
            taken.bytes -= self.bytes;
        }
        self.turns.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(turns: &Arc<Turns>, length: u64) -> Vec<Turn> {
        std::iter::from_fn(|| turns.try_next().map(|turn| turn.of_length(length))).collect()
    }

    #[test]
    fn short_requests_are_more_than_long_ones() {
        let turns = Turns::new(2, 1000);
        assert_eq!(taken(&turns, 1000).len(), 2);
        assert_eq!(taken(&turns, 300).len(), 4, "four of them leave no room for a long one");
        assert_eq!(taken(&turns, 5000).len(), 2, "longer ones are no fewer");
        assert_eq!(taken(&turns, 1).len(), 16);
        assert_eq!(taken(&Turns::new(1, 1000), 1).len(), 1, "one at a time is one at a time");
        assert_eq!(turns.taken.lock().bytes, 0);
    }

    #[tokio::test]
    async fn who_waits_hears_of_a_turn() {
        let turns = Turns::new(1, 1000);
        let turn = turns.next().await;
        let waiting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.next().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(turn);
        drop(waiting.await.unwrap());
        assert_eq!(turns.taken.lock().requests, 0);
    }
}
