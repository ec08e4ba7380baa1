//! How far a run is: one line that is drawn anew on a terminal, a plain line now and then in a pipe.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// Lines in a pipe come this far from each other.
const PLAIN: Duration = Duration::from_secs(10);

/// Where it is shown: on the error stream.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    last: Option<Instant>,
}

// === impl Progress ===

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), last: None }
    }

    /// Shows where the run is.
    pub(crate) fn show(&mut self, line: &str) {
        if self.terminal {
            eprint!("\r\x1b[2K{line}");
            // A terminal that is gone is told nothing.
            let _ = std::io::stderr().flush();
        } else if self.last.is_none_or(|last| last.elapsed() >= PLAIN) {
            eprintln!("{line}");
            self.last = Some(Instant::now());
        }
    }

    /// A line that stays.
    pub(crate) fn stage(&mut self, line: &str) {
        self.clear();
        eprintln!("{line}");
    }

    pub(crate) fn clear(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }
}
