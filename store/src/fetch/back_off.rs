//! A pause after failures, shared by all that a layer fetches: an origin that is down is asked about once a second.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// When to try again.
#[derive(Debug, Default)]
pub(crate) struct BackOff(Mutex<Option<Pause>>);

#[derive(Debug, Clone, Copy)]
struct Pause {
    len: Duration,
    until: Instant,
}

// === impl BackOff ===

impl BackOff {
    /// Waits until the origin may be asked again.
    pub(crate) async fn wait(&self) {
        let pause = *self.0.lock();
        if let Some(pause) = pause {
            sleep_until(pause.until).await;
        }
    }

    /// A request failed. Requests that fail at one time count once.
    pub(crate) fn failed(&self) {
        let mut pause = self.0.lock();
        let now = Instant::now();
        let len = match *pause {
            Some(last) if now < last.until => return,
            Some(last) => (last.len * 2).min(LONGEST),
            None => FIRST,
        };
        *pause = Some(Pause { len, until: now + len });
    }

    /// A request was answered.
    pub(crate) fn worked(&self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_second_and_end_with_an_answer() {
        let back_off = BackOff::default();
        let began = Instant::now();
        back_off.wait().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        for expected in [100, 200, 400, 800, 1000, 1000] {
            back_off.failed();
            back_off.failed();
            let began = Instant::now();
            back_off.wait().await;
            assert_eq!(began.elapsed(), Duration::from_millis(expected));
        }
        back_off.worked();
        let began = Instant::now();
        back_off.wait().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
