//! Delay and bandwidth of a network between client and registry.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A network's figures; the default is none: as fast as loopback.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shaping {
    /// The round trip: added to every connection before it is served, and to every request before it is answered.
    pub latency: Duration,
    /// Bits a second over all connections together; unlimited when `None`.
    pub bits_per_second: Option<u64>,
}

impl Shaping {
    /// A network with `millis` of delay and `mbit` Mbit/s; 0 is no limit.
    pub fn new(millis: u64, mbit: u64) -> Self {
        let bits_per_second = (mbit > 0).then_some(mbit * 1_000_000);
        Self { latency: Duration::from_millis(millis), bits_per_second }
    }
}

/// How far the link may lag behind its pace and still catch up. The timer wakes up to two milliseconds late, and
/// a link that forgot that time would never reach 1 Gbit/s, where a piece of 128 KiB takes one.
const CATCH_UP: Duration = Duration::from_millis(5);

/// A socket's buffer is not made smaller than this.
const LEAST_ON_THE_WAY: usize = 128 << 10;

/// Shapes what is sent.
#[derive(Debug)]
pub(super) struct Shaper {
    shaping: Mutex<Shaping>,
    /// When the link has sent all that was given to it.
    free_at: Mutex<Instant>,
}

impl Shaper {
    pub(super) fn new(shaping: Shaping) -> Self {
        Self { shaping: Mutex::new(shaping), free_at: Mutex::new(Instant::now()) }
    }

    pub(super) fn set(&self, shaping: Shaping) {
        *self.shaping.lock() = shaping;
    }

    /// How many bytes a connection has on its way at most, if that is bounded. The socket's buffer stands for the link: a
    /// client that stops reading must not be sent megabytes more, as no network would.
    pub(super) fn on_the_way(&self) -> Option<usize> {
        let shaping = *self.shaping.lock();
        let bits = shaping.bits_per_second?;
        let product = bits as f64 / 8.0 * shaping.latency.as_secs_f64();
        Some((product as usize).max(LEAST_ON_THE_WAY))
    }

    /// Waits a request's delay.
    pub(super) async fn delay(&self) {
        let latency = self.shaping.lock().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    /// Waits until the link has sent `bytes` more.
    pub(super) async fn send(&self, bytes: usize) {
        let Some(bits) = self.shaping.lock().bits_per_second else { return };
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / bits as f64);
        let done = {
            let mut free_at = self.free_at.lock();
            *free_at = when_sent(*free_at, Instant::now(), takes);
            *free_at
        };
        // The timer's grain is a millisecond: shorter debts are left to add up.
        if done > Instant::now() + Duration::from_millis(1) {
            tokio::time::sleep_until(done.into()).await;
        }
    }
}

/// When a link that is free at `free_at` has sent what it is given `now` and what `takes` so long.
fn when_sent(free_at: Instant, now: Instant, takes: Duration) -> Instant {
    free_at.max(now.checked_sub(CATCH_UP).unwrap_or(now)) + takes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_sender_that_wakes_late_keeps_the_pace() {
        let start = Instant::now();
        let (mut now, mut free_at) = (start, start);
        for _ in 0..1000 {
            free_at = when_sent(free_at, now, MILLISECOND);
            // The timer wakes it two milliseconds late.
            if free_at > now + MILLISECOND {
                now = free_at + 2 * MILLISECOND;
            }
        }
        assert!(now - start <= 1005 * MILLISECOND, "{:?}", now - start);
        assert!(now - start >= 990 * MILLISECOND, "{:?}", now - start);
    }

    #[test]
    fn senders_share_the_link() {
        let now = Instant::now();
        let mut free_at = now;
        for _ in 0..200 {
            free_at = when_sent(free_at, now, MILLISECOND);
        }
        assert_eq!(free_at - now, 200 * MILLISECOND);
    }

    #[test]
    fn a_link_that_was_idle_sends_no_more_than_the_rest_of_a_moment_at_once() {
        let start = Instant::now();
        let later = start + Duration::from_secs(60);
        let sent = when_sent(start, later, Duration::from_secs(1));
        assert!(sent >= later + Duration::from_secs(1) - CATCH_UP);
    }
}
