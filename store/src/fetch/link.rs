//! Who may use the link: of the responses that are coming in, those that somebody waits for go first.
//!
//! A program that starts waits for one read at a time. What comes next in the blob is likely to be wanted soon, so a window
//! goes on behind what was missed; but as soon as a read waits for something else, everything that nobody waits for must
//! leave the link to it. A response is held back by not reading it: TCP's flow control stops the sender once the socket's
//! buffers are full. Of responses that nobody waits for, the one that was of use last goes on: a program that just read
//! here will read on here.
//!
//! A response that is held back or that its origin lets hang has no claim on the link: it must not stop the others.

use std::{cmp::Reverse, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

/// How much a response's next bytes matter; the first is the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    /// Somebody waits for them.
    Waited,
    /// They were asked for because somebody will wait for them: next to a miss, or planned.
    Near,
    /// They follow on what was missed. The later the window was of use, the more they matter.
    Tail(Reverse<u64>),
    /// The rest of the layer.
    Background,
}

/// The claims of all responses that are coming in.
#[derive(Debug)]
pub(crate) struct Link {
    seats: Mutex<Seats>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: Vec<(u64, Claim)>,
}

/// The place of one response. It has no claim until [`Seat::claim`].
#[derive(Debug)]
pub(crate) struct Seat {
    link: Arc<Link>,
    number: u64,
    claim: Option<Claim>,
}

// === impl Link ===

impl Link {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { seats: Mutex::default(), changed: watch::Sender::new(0) })
    }

    /// A place for a response.
    pub(crate) fn seat(self: &Arc<Self>) -> Seat {
        let number = {
            let mut seats = self.seats.lock();
            seats.next += 1;
            seats.next
        };
        Seat { link: Arc::clone(self), number, claim: None }
    }

    /// Lets all that are held back look again at their claims.
    pub(crate) fn wake(&self) {
        self.changed.send_modify(|times| *times += 1);
    }

    /// The next number in the order in which windows are of use.
    pub(crate) fn tick(&self) -> u64 {
        let mut seats = self.seats.lock();
        seats.next += 1;
        seats.next
    }
}

// === impl Seat ===

impl Seat {
    /// Claims the link. Says whether nobody has a better claim.
    pub(crate) fn claim(&mut self, claim: Claim) -> bool {
        let mut seats = self.link.seats.lock();
        if self.claim != Some(claim) {
            let worse = self.claim.is_some_and(|before| before < claim);
            self.claim = Some(claim);
            match seats.taken.iter_mut().find(|(number, _)| *number == self.number) {
                Some((_, before)) => *before = claim,
                None => seats.taken.push((self.number, claim)),
            }
            if worse {
                self.link.wake();
            }
        }
        seats.taken.iter().all(|(_, other)| *other >= claim)
    }

    /// Gives the claim up, until the next one is made.
    pub(crate) fn leave(&mut self) {
        if self.claim.take().is_some() {
            self.link.seats.lock().taken.retain(|(number, _)| *number != self.number);
            self.link.wake();
        }
    }

    /// What tells that claims changed after this call.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        let mut changed = self.link.changed.subscribe();
        changed.mark_unchanged();
        changed
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_claims_go_on() {
        let link = Link::new();
        let (mut one, mut two, mut three) = (link.seat(), link.seat(), link.seat());
        assert!(one.claim(Claim::Background));
        assert!(two.claim(Claim::Tail(Reverse(1))));
        assert!(!one.claim(Claim::Background));
        assert!(three.claim(Claim::Tail(Reverse(2))), "was of use later");
        assert!(!two.claim(Claim::Tail(Reverse(1))));
        assert!(one.claim(Claim::Waited));
        assert!(two.claim(Claim::Waited), "all that are waited for go on");
        assert!(!three.claim(Claim::Near));
    }

    #[tokio::test]
    async fn those_held_back_hear_of_better_times() {
        let link = Link::new();
        let (mut first, mut second) = (link.seat(), link.seat());
        assert!(first.claim(Claim::Waited) && !second.claim(Claim::Near));
        let mut changed = second.watch();
        assert!(!changed.has_changed().unwrap());
        assert!(first.claim(Claim::Near));
        changed.changed().await.unwrap();
        assert!(second.claim(Claim::Near), "equals go on together");

        assert!(first.claim(Claim::Waited) && !second.claim(Claim::Near));
        let mut changed = second.watch();
        first.leave();
        changed.changed().await.unwrap();
        assert!(second.claim(Claim::Near));
        assert!(first.claim(Claim::Waited) && !second.claim(Claim::Near));
        drop(first);
        assert!(second.claim(Claim::Near));
    }
}
