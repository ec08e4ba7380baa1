//! Memory runs out for the daemon, never for its holder, without which everything would be lost.

use std::fs;

const PLACE: &str = "/proc/self/oom_score_adj";
/// Never to be chosen.
const SPARED: &str = "-1000";

/// How likely the kernel was to end this process for memory, to be restored in the program.
#[derive(Debug)]
pub(crate) struct Before(Option<String>);

/// Spares this process, if it may.
pub(crate) fn this_process() -> Before {
    let before = fs::read_to_string(PLACE).ok();
    Before(before.filter(|_| fs::write(PLACE, SPARED).is_ok()))
}

// === impl Before ===

impl Before {
    /// Makes this process, a copy of the one that was spared, as likely to be chosen as that was before.
    pub(crate) fn restore(&self) {
        if let Some(before) = &self.0 {
            // Raising it is always allowed.
            let _ = fs::write(PLACE, before.trim());
        }
    }
}
