//! Progress for people: bars on a terminal, plain lines in a pipe, both on standard error.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress is shown.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bars: MultiProgress,
    lines: bool,
}

// === impl Progress ===

impl Progress {
    /// Progress on standard error; nothing at all if `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self { bars: MultiProgress::with_draw_target(target), lines: !quiet }
    }

    /// A bar of `total` bytes that vanishes when dropped; invisible where there is no terminal.
    pub(crate) fn bytes(&self, what: String, total: u64) -> Bar {
        let bar = self.bars.add(ProgressBar::new(total));
        let style =
            ProgressStyle::with_template("{msg:40!} {bar:30} {bytes:>10} of {total_bytes} {bytes_per_sec}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        Bar(bar)
    }

    /// One line that stays.
    pub(crate) fn line(&self, text: &str) {
        if !self.lines {
            return;
        }
        if self.bars.is_hidden() {
            eprintln!("{text}");
        } else {
            // The terminal may be gone; there is nobody to tell then.
            let _ = self.bars.println(text);
        }
    }
}

/// One bar.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

// === impl Bar ===

impl Bar {
    /// Counts `bytes` more.
    pub(crate) fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Counts `bytes` in all.
    pub(crate) fn set(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Bytes with a decimal unit, as registries and `docker images` count.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).unwrap_or(&"TB"))
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_have_decimal_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (4_200_000_000, "4.2 GB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
