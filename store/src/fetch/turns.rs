//! The background's turns: what it may have in flight, over the whole store.
//!
//! Short requests, as those for what lies between the chunks of a plan, would leave the link empty for most of each round trip
//! if they were as few as long ones. They must be short together: a short response fits into the socket's buffers, so that it
//! cannot be held back when a read comes.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Requests that the background may have in flight for each of full length, while all of them are short.
pub const SHORT_REQUESTS: usize = 2;
/// In this part of a full length all of them are short together.
const SHORT_PART: u64 = 8;

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
        let short = taken.bytes <= self.length / SHORT_PART;
        let free = taken.requests < self.requests
            || (short && taken.requests < self.requests.saturating_mul(SHORT_REQUESTS));
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
        let turns = Turns::new(2, 800);
        assert_eq!(taken(&turns, 800).len(), 2);
        assert_eq!(taken(&turns, 5000).len(), 2, "longer ones are no fewer");
        assert_eq!(taken(&turns, 40).len(), 3, "three of them are not short any more");
        assert_eq!(taken(&turns, 1).len(), 4);
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
