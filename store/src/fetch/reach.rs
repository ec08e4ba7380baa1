//! How far a miss reaches: a few recent windows tell sequential reading from random reading.

/// Recent windows that are remembered: readers in one layer that can be told apart.
const STREAMS: usize = 8;
/// After this many random misses in a row windows halve.
const PATIENCE: u32 = 8;
/// Windows halve at most this often.
const HALVINGS: u32 = 2;
/// The part of a random miss' window that lies before it.
const BACKWARD: u64 = 8;

/// How much of the blob to ask for around a miss, in bytes from the start of the member that was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) backward: u64,
    pub(crate) forward: u64,
    /// The reader goes through the blob in order: what comes next is wanted soon.
    pub(crate) sequential: bool,
}

/// The smallest and the largest window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

/// What the last misses were like.
#[derive(Debug, Default)]
pub(crate) struct Pattern {
    /// The latest last.
    streams: Vec<Stream>,
    random: u32,
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    end: u64,
    size: u64,
}

// === impl Bounds ===

impl Bounds {
    /// The nearest size that is allowed; the smallest counts if it is more than the largest.
    pub(crate) fn clamp(self, size: u64) -> u64 {
        size.clamp(self.min, self.max.max(self.min))
    }
}

// === impl Pattern ===

impl Pattern {
    /// Sizes the window for a miss at `at`. `product` is what the link carries during a round trip.
    pub(crate) fn reach(&mut self, at: u64, product: u64, bounds: Bounds) -> Reach {
        let follows = |stream: &Stream| (stream.end..=stream.end.saturating_add(stream.size)).contains(&at);
        if let Some(position) = self.streams.iter().rposition(follows) {
            let stream = self.streams.remove(position);
            self.random = 0;
            let forward = bounds.clamp(stream.size.saturating_mul(2));
            return Reach { backward: 0, forward, sequential: true };
        }
        let halvings = (self.random / PATIENCE).min(HALVINGS);
        self.random += 1;
        let size = bounds.clamp(product >> halvings);
        Reach { backward: size / BACKWARD, forward: size - size / BACKWARD, sequential: false }
    }

    /// Remembers the window that was chosen.
    pub(crate) fn chosen(&mut self, end: u64, reach: Reach) {
        if self.streams.len() >= STREAMS {
            self.streams.remove(0);
        }
        self.streams.push(Stream { end, size: reach.forward });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { min: 100, max: 6400 };

    #[test]
    fn grows_while_reading_goes_on_in_order() {
        let mut pattern = Pattern::default();
        let mut at = 1000;
        let mut sizes = Vec::new();
        for _ in 0..6 {
            let reach = pattern.reach(at, 800, BOUNDS);
            sizes.push(reach.forward);
            at += reach.forward;
            pattern.chosen(at, reach);
        }
        assert_eq!(sizes, [700, 1400, 2800, 5600, 6400, 6400]);
    }

    #[test]
    fn shrinks_while_reading_jumps() {
        let mut pattern = Pattern::default();
        let sizes = (0..40).map(|jump| {
            let reach = pattern.reach(1_000_000 * (jump % 20 + 1), 800, BOUNDS);
            pattern.chosen(0, reach);
            reach.forward + reach.backward
        });
        let sizes: Vec<u64> = sizes.skip(1).collect();
        assert_eq!((sizes[0], sizes[10], sizes[30]), (800, 400, 200));
        assert!(sizes.iter().all(|size| *size >= BOUNDS.min));
    }

    #[test]
    fn two_readers_are_told_apart() {
        let mut pattern = Pattern::default();
        let mut ends = [0, 1_000_000];
        for round in 0..3 {
            for end in &mut ends {
                let reach = pattern.reach(*end, 800, BOUNDS);
                assert_eq!(reach.sequential, round > 0);
                *end += reach.forward;
                pattern.chosen(*end, reach);
            }
        }
    }
}
