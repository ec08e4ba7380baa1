//! What the ends of blobs tell of a link: they are read before anything else, so that a slow link is known before the first
//! window is cut.
//!
//! Those of an image's layers come side by side and share the link: only all of them together tell how fast it is, and as
//! each is heard of at its own time, what was told is never taken back for less. [`Bandwidth`](super::bandwidth::Bandwidth) says how
//! far it is believed.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::Arrival;

/// In less time a busy processor, or one that waits for the network's, looks like a slow link.
const SHORTEST: Duration = Duration::from_millis(100);
/// A connection is slow at first (RFC 5681, section 3.1): in times of what its first byte took, it has become as fast as
/// the link by then.
const SLOW_START: u32 = 6;
/// Fewer bytes are on their way in some few round trips, however fast the link is.
const FEWEST: u64 = 256 << 10;

/// Ends of blobs that came from one origin.
#[derive(Debug, Default)]
pub(super) struct BlobEnds {
    /// Those that came side by side last.
    group: Option<Group>,
    /// Bytes that come in a second at least.
    rate: f64,
    /// Whether that is about how many come.
    tells: bool,
}

#[derive(Debug)]
struct Group {
    time: Range<Instant>,
    /// The shortest time until a first byte.
    first_byte: Duration,
    bytes: u64,
}

// === impl BlobEnds ===

impl BlobEnds {
    /// Adds the end of a blob. Says how many bytes come in a second, if that can be told.
    pub(super) fn add(&mut self, arrival: &Arrival) -> Option<f64> {
        let group = match self.group.take() {
            Some(group) if group.is_beside(arrival) => group.with(arrival),
            _ => Group::new(arrival),
        };
        let time = group.time.end.saturating_duration_since(group.time.start);
        // More could have come only if nobody asked: a short time says that the link is at least so fast.
        self.rate = self.rate.max(group.bytes as f64 / time.max(SHORTEST).as_secs_f64());
        self.tells |= group.bytes >= FEWEST && time >= SHORTEST.max(group.first_byte * SLOW_START);
        self.group = Some(group);
        self.tells.then_some(self.rate)
    }
}

// === impl Group ===

impl Group {
    fn new(arrival: &Arrival) -> Self {
        let first_byte = arrival.time.start.saturating_duration_since(arrival.asked);
        Self { time: arrival.time.clone(), first_byte, bytes: arrival.bytes }
    }

    fn is_beside(&self, arrival: &Arrival) -> bool {
        arrival.time.start < self.time.end && self.time.start < arrival.time.end
    }

    fn with(self, arrival: &Arrival) -> Self {
        let Self { time, first_byte, bytes } = Self::new(arrival);
        Self {
            time: self.time.start.min(time.start)..self.time.end.max(time.end),
            first_byte: self.first_byte.min(first_byte),
            bytes: self.bytes + bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Link {
        began: Instant,
        first_byte: Duration,
        ends: BlobEnds,
    }

    impl Link {
        fn new(first_byte: u64) -> Self {
            // Whatever was asked for before is after the machine's own beginning.
            let began = Instant::now() + Duration::from_secs(60);
            Self { began, first_byte: Duration::from_millis(first_byte), ends: BlobEnds::default() }
        }

        /// The end of a blob of so many bytes, which came between these milliseconds.
        fn add(&mut self, bytes: u64, from: u64, to: u64) -> Option<f64> {
            let at = |ms| self.began + Duration::from_millis(ms);
            let asked = at(from) - self.first_byte;
            self.ends.add(&Arrival { asked, time: at(from)..at(to), bytes })
        }
    }

    #[test]
    fn those_that_came_side_by_side_tell_together() {
        let mut link = Link::new(20);
        assert_eq!(link.add(300_000, 0, 50), None, "so short a time tells nothing");
        assert_eq!(link.add(300_000, 40, 200), Some(3e6));
        assert_eq!(link.add(900_000, 20, 500), Some(3e6));
        assert_eq!(link.add(1_000_000, 100, 500), Some(5e6));
    }

    #[test]
    fn few_bytes_tell_nothing_and_take_nothing_back() {
        let mut link = Link::new(20);
        assert_eq!(link.add(30_000, 0, 300), None);
        assert_eq!(link.add(2_000_000, 400, 1400), Some(2e6));
        assert_eq!(link.add(30_000, 2000, 2300), Some(2e6));
        assert_eq!(link.add(1_000_000, 3000, 8000), Some(2e6), "it was held up");
    }

    #[test]
    fn a_short_time_says_that_the_link_is_not_slow() {
        let mut link = Link::new(20);
        assert_eq!(link.add(500_000, 0, 1000), Some(5e5));
        assert_eq!(link.add(2_000_000, 2000, 2020), Some(2e7));
    }

    #[test]
    fn the_slow_start_of_a_connection_is_not_the_speed_of_the_link() {
        let mut link = Link::new(160);
        assert_eq!(link.add(512_000, 0, 500), None, "five round trips and a half of 80 ms");
        assert_eq!(link.add(3_000_000, 2000, 3000), Some(3e6));
    }
}
