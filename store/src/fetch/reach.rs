//! How far a miss reaches: a few recent windows tell sequential reading from random reading.

/// Recent windows that are remembered: readers in one layer that can be told apart.
const STREAMS: usize = 8;
/// After this many random misses in a row windows halve.
const PATIENCE: u32 = 8;
/// Windows halve at most this often.
const HALVINGS: u32 = 2;
/// A reader for whom so many windows followed one another, those ahead of it among them, goes through all of the blob: it is
/// known again behind any stretch that is here.
const STEADY: u32 = 4;
/// The part of a random miss' window that lies before it.
const BACKWARD: u64 = 8;

/// How much of the blob to ask for around a miss, in bytes from the start of the member that was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) backward: u64,
    pub(crate) forward: u64,
    /// How many windows in a row came before this one.
    pub(crate) steps: u32,
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
    steps: u32,
}

// === impl Reach ===

impl Reach {
    /// The member that was missed, and nothing around it.
    pub(crate) const ONE_MEMBER: Self = Self { backward: 0, forward: 0, steps: 0 };

    /// Whether the reader goes through the blob in order: what comes next is wanted soon.
    pub(crate) fn is_sequential(self) -> bool {
        self.steps > 0
    }
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
    /// Sizes the window for a miss at `at`. `product` is what the link carries during a round trip; `is_here_from` says whether
    /// all of the blob between a place and `at` is here.
    pub(crate) fn reach(
        &mut self,
        at: u64,
        product: u64,
        bounds: Bounds,
        is_here_from: impl Fn(u64) -> bool,
    ) -> Reach {
        if let Some(position) = self.follows(at, is_here_from) {
            let stream = self.streams.remove(position);
            self.random = 0;
            let forward = bounds.clamp(stream.size.saturating_mul(2));
            return Reach { backward: 0, forward, steps: stream.steps.saturating_add(1) };
        }
        let halvings = (self.random / PATIENCE).min(HALVINGS);
        self.random += 1;
        let size = bounds.clamp(product >> halvings);
        Reach { backward: size / BACKWARD, forward: size - size / BACKWARD, steps: 0 }
    }

    /// Whether who waits at `at` for what the background asked for, up to `end`, goes through all of the blob.
    pub(crate) fn joins(&mut self, at: u64, end: u64, is_here_from: impl Fn(u64) -> bool) -> bool {
        let followed = self.follows(at, is_here_from).and_then(|position| self.streams.get_mut(position));
        let Some(stream) = followed.filter(|stream| stream.steps >= STEADY) else { return false };
        stream.end = end;
        true
    }

    /// The latest stream that goes on at `at`.
    fn follows(&self, at: u64, is_here_from: impl Fn(u64) -> bool) -> Option<usize> {
        self.streams.iter().rposition(|stream| {
            at.checked_sub(stream.end)
                .is_some_and(|gap| gap <= stream.size || (stream.steps >= STEADY && is_here_from(stream.end)))
        })
    }

    /// Remembers the window that was chosen.
    pub(crate) fn chosen(&mut self, end: u64, reach: Reach) {
        if self.streams.len() >= STREAMS {
            self.streams.remove(0);
        }
        self.streams.push(Stream { end, size: reach.forward, steps: reach.steps });
    }

    /// The reader of the window that ended at `before` has one more on its way, up to `end`.
    pub(crate) fn went_on(&mut self, before: u64, end: u64) {
        if let Some(stream) = self.streams.iter_mut().rfind(|stream| stream.end == before) {
            stream.end = end;
        }
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
            let reach = pattern.reach(at, 800, BOUNDS, |_| false);
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
            let reach = pattern.reach(1_000_000 * (jump % 20 + 1), 800, BOUNDS, |_| false);
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
                let reach = pattern.reach(*end, 800, BOUNDS, |_| false);
                assert_eq!(reach.is_sequential(), round > 0);
                *end += reach.forward;
                pattern.chosen(*end, reach);
            }
        }
    }

    #[test]
    fn a_reader_is_known_behind_all_that_is_on_its_way() {
        let mut pattern = Pattern::default();
        let reach = pattern.reach(0, 800, BOUNDS, |_| false);
        pattern.chosen(700, reach);
        pattern.went_on(700, 5000);
        pattern.went_on(5000, 9000);
        assert!(pattern.reach(9000, 800, BOUNDS, |_| false).is_sequential());
        assert!(!pattern.reach(700, 800, BOUNDS, |_| false).is_sequential());
    }

    #[test]
    fn a_reader_is_known_behind_all_that_is_here() {
        let mut pattern = Pattern::default();
        let mut end = 0;
        for steps in 0..=STEADY {
            assert!(!pattern.joins(90_000, 95_000, |_| true), "who went on {steps} times may soon jump");
            let reach = pattern.reach(end, 800, BOUNDS, |_| false);
            end += reach.forward;
            pattern.chosen(end, reach);
        }
        assert!(!pattern.joins(90_000, 95_000, |_| false));
        assert!(pattern.joins(90_000, 95_000, |from| from == end));
        assert!(pattern.reach(200_000, 800, BOUNDS, |from| from == 95_000).is_sequential());
    }
}
