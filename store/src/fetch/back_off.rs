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

    #[tokio::test]
    async fn pauses_grow_and_end_with_an_answer() {
        let back_off = BackOff::default();
        assert!(pause(&back_off).await < FIRST);
        for expected in [1, 2, 4] {
            back_off.failed();
            back_off.failed();
            let took = pause(&back_off).await;
            assert!(took >= FIRST * expected && took < FIRST * expected * 2, "{took:?}");
        }
        back_off.failed();
        back_off.worked();
        assert!(pause(&back_off).await < FIRST);
    }

    #[tokio::test]
    async fn no_pause_is_longer_than_the_longest() {
        let back_off = BackOff::default();
        for _ in 0..20 {
            back_off.failed();
            let last =
                back_off.0.lock().as_mut().map(|pause| std::mem::replace(&mut pause.until, Instant::now()));
            assert!(last.unwrap() <= Instant::now() + LONGEST);
        }
        assert_eq!(back_off.0.lock().unwrap().len, LONGEST);
    }

    async fn pause(back_off: &BackOff) -> Duration {
        let began = Instant::now();
        back_off.wait().await;
        began.elapsed()
    }
}
