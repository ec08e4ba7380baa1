//! After a plan: the background waits until the start that it was for is over.
//!
//! A start goes on while files are read for the first time. One that reads what no earlier start read is another
//! program: then the background is of more use than in the way.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{engine::Engine, fetch::activity::Busy};

/// How long no file is read for the first time until a start counts as over.
const QUIET: Duration = Duration::from_millis(500);
/// How long the first read is waited for: a container that comes later finds the background at work.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest start.
const LONGEST: Duration = Duration::from_secs(15);
/// Reads that miss what was planned, until the start counts as another one.
const MOST_MISSED: u64 = 16;
const PAUSE: Duration = Duration::from_millis(50);

/// Holds `busy` until the start is over; the plan was followed from `planned` on.
pub(super) async fn until_started(engine: Arc<Engine>, mut busy: Busy, planned: Instant) {
    busy.resume();
    let began = Instant::now();
    let missed = || engine.planner.missed.load(Relaxed);
    let before = missed();
    while began.elapsed() < LONGEST && missed() - before < MOST_MISSED {
        let over = match engine.starts.latest().filter(|latest| *latest > planned) {
            Some(latest) => latest.elapsed() > QUIET,
            None => began.elapsed() > PATIENCE,
        };
        if over {
            return;
        }
        sleep(PAUSE).await;
    }
}
