//! Measures pauses: the same few bytes, which are on disk, again and again. They are served whatever the registry does,
//! and whatever happens to the daemon; the longest of these reads between two kills is the pause of the first.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use parking_lot::Mutex;

use crate::{judge::Judge, readers::Doing, truth::Truth};

const LEN: usize = 4096;
/// Shorter reads are no pause.
const NOTICED: Duration = Duration::from_millis(2);

/// The reads that took a while: when they began and ended.
#[derive(Debug, Default)]
pub(crate) struct Beats(Mutex<Vec<(Instant, Instant)>>);

/// The file whose beginning is read, and what that is.
#[derive(Debug)]
pub(crate) struct Pulse {
    file: File,
    bytes: Vec<u8>,
}

// === impl Pulse ===

impl Pulse {
    /// Fetches what will be read.
    pub(crate) fn open(root: &Path, truth: &Truth) -> Result<Self> {
        let known = truth.files().iter().find(|file| file.len >= LEN as u64).context("only small files")?;
        let file = File::open(root.join(&known.path))?;
        let mut bytes = vec![0; LEN];
        file.read_exact_at(&mut bytes, 0)?;
        anyhow::ensure!(bytes == truth.read(known, 0, LEN)?, "wrong bytes before anything happened");
        Ok(Self { file, bytes })
    }

    /// Reads until the end of the run.
    pub(crate) fn beat(&self, beats: &Beats, judge: &Judge, doing: &Doing) {
        let mut bytes = vec![0; LEN];
        while judge.pause(Duration::from_micros(500)) {
            let began = Instant::now();
            let read = doing.bounded("reading what is on disk", || {
                posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
                self.file.read_exact_at(&mut bytes, 0)
            });
            match read {
                Ok(()) if bytes == self.bytes => {}
                Ok(()) => judge.fail("wrong bytes in what was on disk from the start"),
                Err(error) => judge.fail(format!("what was on disk from the start cannot be read: {error}")),
            }
            judge.counts.pulse_reads.fetch_add(1, Relaxed);
            let ended = Instant::now();
            if ended - began > NOTICED {
                beats.0.lock().push((began, ended));
            }
        }
    }
}

// === impl Beats ===

impl Beats {
    /// The longest read between each of `kills` and the next, sorted.
    pub(crate) fn pauses(&self, kills: &[Instant]) -> Vec<Duration> {
        let beats = self.0.lock();
        let ends = kills.iter().skip(1).copied().chain([Instant::now()]);
        let longest = |(kill, end): (&Instant, Instant)| {
            let held_up = beats.iter().filter(|(began, ended)| ended > kill && *began < end);
            held_up.map(|(began, ended)| *ended - *began).max().unwrap_or_default()
        };
        let mut pauses: Vec<_> = kills.iter().zip(ends).map(longest).collect();
        pauses.sort();
        pauses
    }
}
