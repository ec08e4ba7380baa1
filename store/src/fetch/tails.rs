//! What the ends of blobs tell of a link: they are read before anything else, so that a slow link is known before the first
//! window is cut.
//!
//! Those of an image's layers come side by side and share the link: only all of them together tell how fast it is.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

/// In less time a busy processor, or one that waits for the network's, looks like a slow link.
const SHORTEST: Duration = Duration::from_millis(100);

/// Ends of blobs that came side by side.
#[derive(Debug, Default)]
pub(super) struct Tails {
    /// From the first byte of them all to the last.
    came: Option<Range<Instant>>,
    bytes: u64,
}

// === impl Tails ===

impl Tails {
    /// Adds the end of a blob, `bytes` long. Says how many bytes come in a second, if that can be told.
    pub(super) fn add(&mut self, bytes: u64, came: &Range<Instant>) -> Option<f64> {
        let all = match self.came.take() {
            Some(all) if came.start < all.end && all.start < came.end => {
                self.bytes += bytes;
                all.start.min(came.start)..all.end.max(came.end)
            }
            _ => {
                self.bytes = bytes;
                came.clone()
            }
        };
        let time = all.end.saturating_duration_since(all.start);
        self.came = Some(all);
        (time >= SHORTEST).then(|| self.bytes as f64 / time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_came_side_by_side_tell_together() {
        let (mut tails, first) = (Tails::default(), Instant::now());
        let ms = |from, to| first + Duration::from_millis(from)..first + Duration::from_millis(to);
        assert_eq!(tails.add(100_000, &ms(0, 50)), None, "so short a time tells nothing");
        assert_eq!(tails.add(300_000, &ms(40, 200)), Some(2e6));
        assert_eq!(tails.add(600_000, &ms(20, 500)), Some(2e6));
        assert_eq!(tails.add(800_000, &ms(600, 1000)), Some(2e6), "nothing came between");
        assert_eq!(tails.add(200_000, &ms(700, 900)), Some(2.5e6));
    }
}
