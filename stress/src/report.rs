//! A run's figures, for people and for programs.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::Serialize;

use crate::{judge::Judge, watch::Taken};

/// What a run did and found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Repeats the plan.
    pub seed: u64,
    /// How long faults struck.
    pub seconds: u64,
    /// Kills of the daemon.
    pub kills: u64,
    /// Kills of containerd.
    pub containerd_kills: u64,
    /// Times in which the registry misbehaved.
    pub misbehaviours: u64,
    /// Times at which all tokens became worthless, beside those that expired by themselves.
    pub expiries: u64,
    /// Times in which the disk was full.
    pub disk_fills: u64,
    /// Bits that were flipped on disk.
    pub flips: u64,
    /// Chunks that were found damaged because of that.
    pub damage_found: u64,
    /// Pieces of files that overlay readers compared.
    pub reads: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that containers compared.
    pub container_reads: u64,
    /// Reads of what was on disk all the time.
    pub pulse_reads: u64,
    /// Reads that failed while the registry misbehaved, and were repeated until they succeeded.
    pub refused: u64,
    /// How often an image was pulled, run, read and removed.
    pub rounds: u64,
    /// Calls of containerd that failed while something struck, and were repeated until they succeeded.
    pub repeated: u64,
    /// For each kill the longest read of what was on disk, in milliseconds: the middle one, the 99th percentile, the
    /// longest.
    pub pause_ms: [f64; 3],
    /// The longest of all reads that succeeded, in milliseconds.
    pub longest_read_ms: f64,
    /// The most that a daemon took.
    pub most: Taken,
    /// What must not have happened. Empty, or the run failed.
    pub failures: Vec<String>,
}

// === impl Report ===

impl Report {
    /// Makes the run a failure if the 99th percentile of the pauses is longer than `most` milliseconds.
    pub(crate) fn bound_pauses(&mut self, most: Option<u32>) {
        let [_, pause, _] = self.pause_ms;
        if let Some(most) = most.filter(|most| pause > f64::from(*most)) {
            self.failures
                .push(format!("the 99th percentile of the pauses is {pause} ms, more than {most} ms"));
        }
    }

    pub(crate) fn new(seed: u64, ran: Duration, judge: &Judge, pauses: &[Duration], most: Taken) -> Self {
        let counts = &judge.counts;
        let value = |counter: &AtomicU64| counter.load(Relaxed);
        let percentile = |percent: usize| {
            let at = (pauses.len() * percent).div_ceil(100).saturating_sub(1);
            pauses.get(at).map_or(0.0, |pause| (pause.as_secs_f64() * 1e4).round() / 10.0)
        };
        Self {
            seed,
            seconds: ran.as_secs(),
            kills: value(&counts.kills),
            containerd_kills: value(&counts.containerd_kills),
            misbehaviours: value(&counts.misbehaviours),
            expiries: value(&counts.expiries),
            disk_fills: value(&counts.disk_fills),
            flips: value(&counts.flips),
            damage_found: value(&counts.damage_found),
            reads: value(&counts.reads),
            bytes: value(&counts.bytes),
            container_reads: value(&counts.container_reads),
            pulse_reads: value(&counts.pulse_reads),
            refused: value(&counts.refused),
            rounds: value(&counts.rounds),
            repeated: value(&counts.repeated),
            pause_ms: [50, 99, 100].map(percentile),
            longest_read_ms: (value(&counts.longest_read_micros) as f64 / 100.0).round() / 10.0,
            most,
            failures: judge.failures(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, longest] = self.pause_ms;
        writeln!(f, "seed {}, {} s", self.seed, self.seconds)?;
        writeln!(
            f,
            "struck:    {} kills of the daemon, {} of containerd, {} misbehaviours of the registry, {} times all tokens, \
             {} full disks, {} flipped bits ({} chunks found damaged)",
            self.kills,
            self.containerd_kills,
            self.misbehaviours,
            self.expiries,
            self.disk_fills,
            self.flips,
            self.damage_found
        )?;
        writeln!(
            f,
            "compared:  {} pieces of files ({} MB), {} files in containers, {} reads of what was on disk",
            self.reads,
            self.bytes / 1_000_000,
            self.container_reads,
            self.pulse_reads
        )?;
        writeln!(
            f,
            "refused:   {} reads while the registry misbehaved, all of which succeeded later; {} calls of containerd",
            self.refused, self.repeated
        )?;
        writeln!(f, "came and went: {} times an image with its containers", self.rounds)?;
        writeln!(
            f,
            "pauses:    p50 {half} ms, p99 {most} ms, longest {longest} ms; longest read {} ms",
            self.longest_read_ms
        )?;
        writeln!(
            f,
            "daemon:    at most {:.1} MiB, {} descriptors, {} tasks",
            self.most.memory as f64 / f64::from(1 << 20),
            self.most.descriptors,
            self.most.tasks
        )?;
        if self.failures.is_empty() {
            return write!(f, "no wrong byte, no read that failed for another reason, nothing left behind");
        }
        self.failures.iter().try_for_each(|failure| writeln!(f, "FAILED:    {failure}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_pauses_that_are_too_long_has_failed() {
        // One in a hundred may be longer.
        let pauses: Vec<_> = (0..98).map(|_| 90).chain([150, 900]).map(Duration::from_millis).collect();
        let failures = |most| {
            let mut report = Report::new(0, Duration::ZERO, &Judge::default(), &pauses, Taken::default());
            report.bound_pauses(most);
            report.failures
        };
        assert!(failures(None).is_empty() && failures(Some(150)).is_empty());
        assert!(failures(Some(149)).concat().contains("150 ms, more than 149"));
    }
}
