//! How fast an origin is: time to the first byte and bytes per second, measured on the windows themselves.
//!
//! Their product is what one more byte costs nothing up to: while a request travels, the link could have carried
//! that much. A window of about this size at most doubles the wait of a single miss, and makes the next ones hits.

use std::time::Duration;

use parking_lot::Mutex;

/// Shorter transfers tell about the time to the first byte only.
const SHORTEST: u64 = 64 << 10;
/// How much a sample counts that is faster than the estimate; slower ones often shared the link.
const FASTER: f64 = 0.5;
/// How much any other sample counts.
const SLOWER: f64 = 0.1;

/// The estimate for one origin.
#[derive(Debug)]
pub(crate) struct Bandwidth(Mutex<Estimate>);

#[derive(Debug, Clone, Copy)]
struct Estimate {
    first_byte: f64,
    bytes_per_second: f64,
}

// === impl Bandwidth ===

impl Bandwidth {
    /// Takes in one transfer: how long its first byte took, then how many bytes in what time.
    pub(crate) fn sample(&self, first_byte: Duration, bytes: u64, transfer: Duration) {
        let mut estimate = self.0.lock();
        let first_byte = first_byte.as_secs_f64();
        let weight = if first_byte < estimate.first_byte { FASTER } else { SLOWER };
        estimate.first_byte += (first_byte - estimate.first_byte) * weight;
        if bytes < SHORTEST {
            return;
        }
        let rate = bytes as f64 / transfer.as_secs_f64().max(1e-6);
        let weight = if rate > estimate.bytes_per_second { FASTER } else { SLOWER };
        estimate.bytes_per_second += (rate - estimate.bytes_per_second) * weight;
    }

    /// How long it takes until the first byte of an answer comes.
    pub(crate) fn first_byte(&self) -> Duration {
        Duration::from_secs_f64(self.0.lock().first_byte.clamp(0.0, 60.0))
    }

    /// Bytes that the link carries in `time`.
    pub(crate) fn carries(&self, time: Duration) -> u64 {
        (self.0.lock().bytes_per_second * time.as_secs_f64()) as u64
    }

    /// Bytes that the link carries while a request is answered.
    pub(crate) fn product(&self) -> u64 {
        let estimate = *self.0.lock();
        (estimate.first_byte * estimate.bytes_per_second) as u64
    }
}

impl Default for Bandwidth {
    /// 20 ms and 200 Mbit/s: a registry in the same region.
    fn default() -> Self {
        Self(Mutex::new(Estimate { first_byte: 0.02, bytes_per_second: 25e6 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_link() {
        let bandwidth = Bandwidth::default();
        assert_eq!(bandwidth.product(), 500_000);
        assert_eq!(bandwidth.carries(Duration::from_millis(10)), 250_000);
        for _ in 0..50 {
            bandwidth.sample(Duration::from_millis(80), 3_000_000, Duration::from_secs(1));
        }
        assert!((200_000..280_000).contains(&bandwidth.product()), "{}", bandwidth.product());
        for _ in 0..8 {
            bandwidth.sample(Duration::from_millis(5), 1 << 20, Duration::from_millis(8));
        }
        assert!((500_000..800_000).contains(&bandwidth.product()), "{}", bandwidth.product());
    }

    #[test]
    fn short_transfers_say_nothing_about_the_rate() {
        let bandwidth = Bandwidth::default();
        bandwidth.sample(Duration::from_millis(20), 100, Duration::from_secs(10));
        bandwidth.sample(Duration::from_millis(20), 0, Duration::ZERO);
        assert_eq!(bandwidth.product(), 500_000);
    }
}
