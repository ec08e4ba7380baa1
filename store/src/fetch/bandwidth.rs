//! How fast an origin is: time to the first byte and bytes per second, measured on the windows themselves, and assumed
//! until there are any.
//!
//! Their product is what one more byte costs nothing up to: while a request travels, the link could have carried
//! that much. A window of about this size at most doubles the wait of a single miss, and makes the next ones hits.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

use super::blob_ends::BlobEnds;
use crate::Arrival;

/// Shorter transfers tell about the time to the first byte only.
const SHORTEST: u64 = 64 << 10;
/// How much a sample counts that is better than the estimate; worse ones often shared the link, or met a busy machine.
const BETTER: f64 = 0.5;
/// How much any other sample counts.
const WORSE: f64 = 0.1;
/// The part of the time to the first byte that a transfer takes at least. Shorter times cannot be told from those of a
/// machine that was busy: they say that the link is at least so fast.
const BRIEFEST: f64 = 0.25;
/// A first byte that took longer than so many times what is usual counts as if it had taken that long: a connection was
/// made for it, or another mirror was asked first.
const LATEST: f64 = 4.0;
/// Seconds until the first byte, before one came: a registry not far away.
const ASSUMED_FIRST_BYTE: f64 = 0.02;
/// Bytes in a second, before they were measured: 200 Mbit/s.
const ASSUMED_RATE: f64 = 25e6;
/// What is assumed counts as much as so many samples.
const ASSUMPTION: f64 = 1.0;
/// The ends of blobs are believed if they say that a link is slower than assumed by more than this factor: they are short,
/// and may share it with others.
const SLOWER: f64 = 2.0;

/// The estimate for one origin.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    estimate: Mutex<Estimate>,
    blob_ends: Mutex<BlobEnds>,
    /// Bytes of all answers so far, without those that came after an answer was held back: they had waited in buffers.
    carried: AtomicU64,
}

/// One answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    /// From the question to the first bytes that were seen.
    pub(crate) first_byte: Duration,
    /// How many these were. Most of the answer, if nobody had time to look.
    pub(crate) first: u64,
    /// The bytes after those.
    pub(crate) rest: u64,
    /// How long they took.
    pub(crate) time: Duration,
    /// What came from the origin between the question and the last byte, with all answers.
    pub(crate) of_all: u64,
}

#[derive(Debug, Clone, Copy)]
struct Estimate {
    /// In seconds.
    first_byte: Averaged,
    bytes_per_second: Averaged,
}

/// An average in which late samples count more, and what was assumed at first no more than one sample.
#[derive(Debug, Clone, Copy)]
struct Averaged {
    value: f64,
    samples: f64,
}

// === impl Bandwidth ===

impl Bandwidth {
    /// Adds bytes of an answer that was not held back so far.
    pub(crate) fn carry(&self, bytes: u64) {
        self.carried.fetch_add(bytes, Relaxed);
    }

    /// Bytes of all answers so far, as [`Self::carry`] was told.
    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Relaxed)
    }

    /// Takes in the end of a blob. It counts only as long as no transfer was measured.
    pub(crate) fn blob_end(&self, arrival: &Arrival) {
        let mut blob_ends = self.blob_ends.lock();
        if let Some(rate) = blob_ends.add(arrival) {
            let rate = if rate * SLOWER < ASSUMED_RATE { rate } else { ASSUMED_RATE };
            self.estimate.lock().bytes_per_second.assume_unless_measured(rate);
        }
    }

    /// Takes in one transfer.
    pub(crate) fn sample(&self, transfer: Transfer) {
        let mut estimate = self.estimate.lock();
        let Estimate { first_byte, bytes_per_second } = &mut *estimate;
        let rate = transfer.rate(first_byte.value, bytes_per_second.value);
        let took = transfer.first_byte.as_secs_f64().min(first_byte.value * LATEST);
        first_byte.add(took, if took < first_byte.value { BETTER } else { WORSE });
        if let Some(rate) = rate {
            bytes_per_second.add(rate, if rate > bytes_per_second.value { BETTER } else { WORSE });
        }
    }

    /// How long it takes until the first byte of an answer comes.
    pub(crate) fn first_byte(&self) -> Duration {
        Duration::from_secs_f64(self.estimate.lock().first_byte.value.clamp(0.0, 60.0))
    }

    /// Bytes that the link carries in `time`.
    pub(crate) fn carries(&self, time: Duration) -> u64 {
        (self.estimate.lock().bytes_per_second.value * time.as_secs_f64()) as u64
    }

    /// Bytes that the link carries while a request is answered.
    pub(crate) fn product(&self) -> u64 {
        let Estimate { first_byte, bytes_per_second } = *self.estimate.lock();
        (first_byte.value * bytes_per_second.value) as u64
    }
}

impl Default for Bandwidth {
    fn default() -> Self {
        let assumed = |value| Averaged { value, samples: ASSUMPTION };
        let estimate =
            Estimate { first_byte: assumed(ASSUMED_FIRST_BYTE), bytes_per_second: assumed(ASSUMED_RATE) };
        Self { estimate: Mutex::new(estimate), blob_ends: Mutex::default(), carried: AtomicU64::new(0) }
    }
}

// === impl Averaged ===

impl Averaged {
    fn assume_unless_measured(&mut self, value: f64) {
        if self.samples <= ASSUMPTION {
            self.value = value;
        }
    }

    fn add(&mut self, sample: f64, weight: f64) {
        self.samples += 1.0;
        self.value += (sample - self.value) * weight.max(1.0 / self.samples);
    }
}

// === impl Transfer ===

impl Transfer {
    /// Bytes per second, if that can be told; `usual` is the time to the first byte, `known` the rate so far.
    ///
    /// Bytes wait in the socket's buffer while the processors have other work, and are then read at the speed of memory: so
    /// the whole answer is looked at too, less the time that its first byte usually takes. Answers that come side by side
    /// share the link: all of them together may show that it is not slower than it was known to be. That it is faster they
    /// cannot show, since some of their bytes may have waited.
    fn rate(&self, usual: f64, known: f64) -> Option<f64> {
        if self.rest < SHORTEST {
            return None;
        }
        let rate = |bytes: u64, seconds: f64| bytes as f64 / seconds.max(1e-6);
        let (time, briefest) = (self.time.as_secs_f64(), usual * BRIEFEST);
        let all = self.first_byte.as_secs_f64() + time;
        let alone = rate(self.first + self.rest, (all - usual).max(briefest)).min(rate(self.rest, time));
        if alone >= known {
            return Some(alone);
        }
        let is_brief = all - usual < briefest;
        (!is_brief).then(|| alone.max(rate(self.of_all, all).min(known)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// 500 kB at 25 MB/s and 20 ms, with nothing beside it.
    const ALONE: Transfer =
        Transfer { first_byte: ms(20), first: 1000, rest: 499_000, time: ms(20), of_all: 500_000 };

    #[test]
    fn follows_the_link() {
        let bandwidth = Bandwidth::default();
        assert_eq!(bandwidth.product(), 500_000);
        assert_eq!(bandwidth.carries(ms(10)), 250_000);
        let slow =
            Transfer { first_byte: ms(80), first: 1000, rest: 3_000_000, time: ms(1000), of_all: 3_001_000 };
        for _ in 0..50 {
            bandwidth.sample(slow);
        }
        assert!((200_000..280_000).contains(&bandwidth.product()), "{}", bandwidth.product());
        let fast = Transfer { first_byte: ms(5), first: 1000, rest: 1 << 20, time: ms(8), of_all: 1 << 20 };
        for _ in 0..8 {
            bandwidth.sample(fast);
        }
        assert!((500_000..800_000).contains(&bandwidth.product()), "{}", bandwidth.product());
    }

    #[test]
    fn a_slow_link_is_known_before_the_first_transfer() {
        let (bandwidth, asked) = (Bandwidth::default(), Instant::now());
        let end = |bytes, from, to| Arrival { asked, time: asked + ms(from)..asked + ms(to), bytes };
        bandwidth.blob_end(&end(4_000_000, 20, 220));
        assert_eq!(bandwidth.product(), 500_000, "twenty is as good as twenty-five");
        let bandwidth = Bandwidth::default();
        bandwidth.blob_end(&end(2_500_000, 20, 1020));
        assert_eq!(bandwidth.product(), 50_000);
        bandwidth.sample(ALONE);
        let measured = bandwidth.product();
        assert!((250_000..300_000).contains(&measured), "{measured}");
        bandwidth.blob_end(&end(500_000, 20, 1020));
        assert_eq!(bandwidth.product(), measured);
    }

    #[test]
    fn short_transfers_say_nothing_about_the_rate() {
        let bandwidth = Bandwidth::default();
        for (rest, time) in [(100, ms(10_000)), (0, ms(0))] {
            bandwidth.sample(Transfer { first_byte: ms(20), first: 0, rest, time, of_all: 0 });
        }
        assert_eq!(bandwidth.product(), 500_000);
    }

    #[test]
    fn bytes_that_waited_to_be_read_do_not_make_the_link_fast() {
        let bandwidth = Bandwidth::default();
        for _ in 0..50 {
            // Looked at when nearly all of it was there.
            let late = Transfer { first_byte: ms(40), first: 400_000, rest: 100_000, time: ms(0), ..ALONE };
            bandwidth.sample(ALONE);
            bandwidth.sample(late);
        }
        assert!((400_000..900_000).contains(&bandwidth.product()), "{}", bandwidth.product());
    }

    #[test]
    fn a_fast_link_far_away_is_found_out() {
        let bandwidth = Bandwidth::default();
        for _ in 0..20 {
            // What it carries in 80 ms at 125 MB/s, asked for in windows of what is known by then.
            let (rest, first_byte) = (bandwidth.product(), ms(80));
            let time = Duration::from_secs_f64(rest as f64 / 125e6);
            bandwidth.sample(Transfer { first_byte, first: 0, rest, time, of_all: rest });
        }
        assert!((8_000_000..10_500_000).contains(&bandwidth.product()), "{}", bandwidth.product());
    }

    #[test]
    fn answers_side_by_side_are_one_link() {
        let bandwidth = Bandwidth::default();
        for _ in 0..50 {
            // Eight at once.
            bandwidth.sample(Transfer { time: ms(160), of_all: 4_000_000, ..ALONE });
        }
        assert!((430_000..520_000).contains(&bandwidth.product()), "{}", bandwidth.product());
    }

    #[test]
    fn what_waited_in_other_answers_does_not_make_the_link_fast() {
        let bandwidth = Bandwidth::default();
        for _ in 0..50 {
            bandwidth.sample(Transfer { of_all: 3_000_000, ..ALONE });
        }
        assert!((490_000..510_000).contains(&bandwidth.product()), "{}", bandwidth.product());
    }

    #[test]
    fn short_windows_do_not_make_the_link_slow() {
        let bandwidth = Bandwidth::default();
        for late in (0..5).cycle().take(200) {
            // A quarter of what the link carries in a round trip, as misses here and there ask for.
            let rest = bandwidth.product() / 4;
            let time = Duration::from_secs_f64(rest as f64 / 25e6);
            let first_byte = ms(20) + Duration::from_micros(200 * late);
            bandwidth.sample(Transfer { first_byte, first: 0, rest, time, of_all: rest });
        }
        assert!(bandwidth.product() > 400_000, "{}", bandwidth.product());
    }

    #[test]
    fn one_late_first_byte_does_not_make_windows_long() {
        let bandwidth = Bandwidth::default();
        bandwidth.sample(Transfer { first_byte: ms(2000), first: 0, rest: 100, time: ms(1), of_all: 100 });
        assert!(bandwidth.product() < 1_500_000, "{}", bandwidth.product());
    }
}
