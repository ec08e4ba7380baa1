//! When a program that ended is started again.

use std::time::Duration;

/// The wait after the first start that never served: a kill may strike a daemon that has just begun.
const SHORTEST: Duration = Duration::from_millis(10);
/// The wait after many.
const LONGEST: Duration = Duration::from_secs(10);

/// Counts starts in vain.
#[derive(Debug, Default)]
pub(crate) struct Restart {
    in_vain: u32,
}

// === impl Restart ===

impl Restart {
    /// How long to wait before the next start, after one that served or did not. One that served is started again at
    /// once, however short it lived: readers wait for it.
    pub(crate) fn after(&mut self, served: bool) -> Duration {
        if served {
            self.in_vain = 0;
            return Duration::ZERO;
        }
        let wait = SHORTEST.saturating_mul(1 << self.in_vain.min(20)).min(LONGEST);
        self.in_vain = self.in_vain.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_starts_in_vain_are_waited_for_and_ever_longer() {
        let mut restart = Restart::default();
        assert_eq!([true, true].map(|served| restart.after(served)), [Duration::ZERO; 2]);
        let waits: Vec<_> = (0..12).map(|_| restart.after(false)).collect();
        assert_eq!((waits[0], waits[1], waits[11]), (SHORTEST, SHORTEST * 2, LONGEST));
        assert!(waits.is_sorted());
        assert_eq!(restart.after(true), Duration::ZERO);
        assert_eq!(restart.after(false), SHORTEST);
    }

    #[test]
    fn a_long_time_in_vain_overflows_nothing() {
        let mut restart = Restart { in_vain: u32::MAX };
        assert_eq!(restart.after(false), LONGEST);
    }
}
