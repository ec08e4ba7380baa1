//! What was done, what failed, and whether it may.
//!
//! A read may fail only while the registry misbehaves, and a little later: `docs/semantics.md` promises an error within a
//! bounded time for what cannot be fetched, and the right bytes for everything else. A call of containerd may fail while
//! anything strikes; it is repeated.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;

/// How long after a misbehaviour its consequences may still be seen: requests that began in it, and the pause that an
/// origin is given after failures.
pub(crate) const AFTERMATH: Duration = Duration::from_secs(3);
/// The daemon's `read_timeout_sec`.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A read that takes longer hangs: its bound, which begins again with each daemon, and the machine's own slowness.
pub(crate) const HANG: Duration = Duration::from_secs(40);

/// Time on the clock that containers see as well, since the machine's start.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Moment(pub(crate) f64);

/// From when to when; no end while it lasts.
#[derive(Debug, Clone, Copy)]
struct Window {
    began: Moment,
    ended: Option<Moment>,
}

/// Figures that are counted while a run goes on.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) reads: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) container_reads: AtomicU64,
    pub(crate) pulse_reads: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) rounds: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) kills: AtomicU64,
    pub(crate) containerd_kills: AtomicU64,
    pub(crate) misbehaviours: AtomicU64,
    pub(crate) expiries: AtomicU64,
    pub(crate) disk_fills: AtomicU64,
    pub(crate) flips: AtomicU64,
    pub(crate) damage_found: AtomicU64,
    pub(crate) longest_read_micros: AtomicU64,
}

/// Collects and judges.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) counts: Counts,
    misbehaving: Mutex<Vec<Window>>,
    striking: Mutex<Vec<Window>>,
    failures: Mutex<Vec<String>>,
    ending: AtomicBool,
}

/// A fault's time, which ends when this is dropped.
pub(crate) struct Strikes<'a> {
    judge: &'a Judge,
    list: fn(&Judge) -> &Mutex<Vec<Window>>,
    at: usize,
}

// === impl Moment ===

impl Moment {
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        Self(now.as_secs_f64())
    }
}

// === impl Judge ===

impl Judge {
    /// The registry misbehaves until the result is dropped.
    pub(crate) fn misbehaves(&self) -> Strikes<'_> {
        self.window(|judge| &judge.misbehaving)
    }

    /// Something else strikes until the result is dropped.
    pub(crate) fn strikes(&self) -> Strikes<'_> {
        self.window(|judge| &judge.striking)
    }

    fn window(&self, list: fn(&Self) -> &Mutex<Vec<Window>>) -> Strikes<'_> {
        let mut windows = list(self).lock();
        windows.push(Window { began: Moment::now(), ended: None });
        Strikes { judge: self, list, at: windows.len() - 1 }
    }

    /// Whether a read with these times may have failed.
    pub(crate) fn read_may_fail(&self, began: Moment, ended: Moment) -> bool {
        overlaps(&self.misbehaving.lock(), began, ended, AFTERMATH)
    }

    /// Whether a call of containerd with these times may have failed.
    pub(crate) fn call_may_fail(&self, began: Moment, ended: Moment) -> bool {
        self.read_may_fail(began, ended) || overlaps(&self.striking.lock(), began, ended, AFTERMATH * 2)
    }

    /// A read came to its end, right.
    pub(crate) fn read(&self, bytes: usize, took: Duration) {
        self.counts.reads.fetch_add(1, Relaxed);
        self.counts.bytes.fetch_add(bytes as u64, Relaxed);
        self.counts
            .longest_read_micros
            .fetch_max(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Something happened that must not. The run ends.
    pub(crate) fn fail(&self, what: impl Into<String>) {
        self.failures.lock().push(what.into());
        self.ending.store(true, Relaxed);
    }

    /// Ends the run.
    pub(crate) fn end(&self) {
        self.ending.store(true, Relaxed);
    }

    /// Whether everyone is to stop.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Relaxed)
    }

    /// What must not have happened.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().clone()
    }

    /// Waits so long, or until the end; whether the run goes on.
    pub(crate) fn pause(&self, len: Duration) -> bool {
        let until = Instant::now() + len;
        while !self.is_ending() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        false
    }
}

fn overlaps(windows: &[Window], began: Moment, ended: Moment, aftermath: Duration) -> bool {
    let over = |window: &Window| window.ended.is_some_and(|end| end.0 + aftermath.as_secs_f64() < began.0);
    windows.iter().any(|window| window.began <= ended && !over(window))
}

impl Drop for Strikes<'_> {
    fn drop(&mut self) {
        if let Some(window) = (self.list)(self.judge).lock().get_mut(self.at) {
            window.ended = Some(Moment::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_may_fail_while_the_registry_misbehaves_and_a_little_later() {
        let judge = Judge::default();
        let now = Moment::now();
        let before = (Moment(now.0 - 2.0), Moment(now.0 - 1.0));
        let across = (Moment(now.0 - 2.0), Moment(now.0 + 2.0));
        assert!(!judge.read_may_fail(across.0, across.1));
        let lasting = judge.misbehaves();
        assert!(judge.read_may_fail(across.0, across.1));
        assert!(!judge.read_may_fail(before.0, before.1));
        drop(lasting);
        let after =
            |seconds: f64| judge.read_may_fail(Moment(now.0 + seconds), Moment(now.0 + seconds + 1.0));
        assert!(after(1.0));
        assert!(!after(AFTERMATH.as_secs_f64() + 5.0));
    }

    #[test]
    fn a_read_may_not_fail_for_what_is_no_fault_of_the_registry() {
        let judge = Judge::default();
        let _killed = judge.strikes();
        let now = Moment::now();
        assert!(judge.call_may_fail(now, now) && !judge.read_may_fail(now, now));
    }
}
