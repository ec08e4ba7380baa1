//! While a program starts for which everything is here the background waits: it could only be in the way of the
//! program's processors.
//!
//! Such is a start after a plan, which goes on while files are read for the first time, and one more start of an image that
//! this node has seen to start, of which only its beginning is known: the kernel has its files and asks for nothing. If a
//! start misses much, or one more start waits, what it reads is not here: then the background is of more use than in the way.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    engine::Engine,
    fetch::{activity::Busy, link::Claim},
};

/// How long no file is read for the first time until a start counts as over.
const QUIET: Duration = Duration::from_millis(500);
/// How long the first read is waited for: a container that comes later finds the background at work.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest start.
const LONGEST: Duration = Duration::from_secs(15);
/// Reads that miss what was planned, until the start counts as another one.
const MOST_MISSED: u64 = 16;
const PAUSE: Duration = Duration::from_millis(50);
/// How long one more start of an image holds the background.
const AGAIN: Duration = Duration::from_secs(2);
/// Reads that wait for bytes, of whatever program, until such a start counts as a cold one.
const MOST_WAITED: u64 = 4;
/// How much of the time such starts may hold it: one in so many parts.
const AGAIN_PARTS: u32 = 2;

/// When a plan was begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) at: Instant,
    /// Reads that had missed by then.
    pub(super) missed: u64,
}

/// When one more start of an image last held the background.
#[derive(Debug, Default)]
pub(crate) struct Again(Mutex<Option<Instant>>);

/// Holds `busy` until the start is over.
pub(super) async fn until_started(engine: Arc<Engine>, mut busy: Busy, plan: Begun) {
    busy.resume();
    let began = Instant::now();
    let missed = || engine.planner.missed.load(Relaxed);
    while began.elapsed() < LONGEST && missed() - plan.missed < MOST_MISSED {
        let over = match engine.starts.latest().filter(|latest| *latest > plan.at) {
            Some(latest) => latest.elapsed() > QUIET,
            None => began.elapsed() > PATIENCE,
        };
        if over {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Holds the background for one more start of an image. Its responses that are coming in are held back, too.
pub(super) async fn while_started_again(engine: Arc<Engine>) {
    let (mut busy, mut seat) = (engine.activity.window(), engine.link.seat());
    busy.resume();
    seat.claim(Claim::Near);
    let began = Instant::now();
    let waited = || engine.planner.waited.load(Relaxed);
    let before = waited();
    while began.elapsed() < AGAIN && waited() - before < MOST_WAITED {
        sleep(PAUSE).await;
    }
}

// === impl Again ===

impl Again {
    /// Whether a start at `now` may hold the background.
    pub(super) fn begins(&self, now: Instant) -> bool {
        let mut last = self.0.lock();
        let begins = last.is_none_or(|last| now.duration_since(last) >= AGAIN * AGAIN_PARTS);
        if begins {
            *last = Some(now);
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_that_come_and_go_leave_half_of_the_time_to_the_background() {
        let (again, first) = (Again::default(), Instant::now());
        let held =
            (0..200).filter(|tenths| again.begins(first + Duration::from_millis(tenths * 100))).count();
        assert_eq!(held, 5);
    }
}
