//! Measures pauses: one read after the other that the daemon must answer, each with its duration.

use std::{
    fmt,
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::readers::evict;

/// A thread that reads the same bytes again and again.
pub(crate) struct Pulse {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, Instant)>>,
}

/// When each read began and ended.
pub(crate) struct Beats(Vec<(Instant, Instant)>);

/// For each kill the longest read that it held up, sorted.
pub(crate) struct Pauses(Vec<Duration>);

impl Pulse {
    /// Reads the start of `file`, which the daemon soon has on disk.
    pub(crate) fn start(file: &Path) -> Self {
        let (file, stop) = (File::open(file).unwrap(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stop);
        let mut truth = [0; 4096];
        file.read_exact_at(&mut truth, 0).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut beats, mut bytes) = (Vec::new(), [0; 4096]);
            while !told.load(Relaxed) {
                evict(&file);
                let began = Instant::now();
                file.read_exact_at(&mut bytes, 0).unwrap();
                beats.push((began, Instant::now()));
                assert_eq!(bytes, truth);
                std::thread::sleep(Duration::from_micros(500));
            }
            beats
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) -> Beats {
        self.stop.store(true, Relaxed);
        Beats(self.thread.join().unwrap())
    }
}

impl Beats {
    pub(crate) fn pauses(&self, kills: &[Instant]) -> Pauses {
        let ends = kills.iter().skip(1).copied().chain([Instant::now()]);
        let longest = |(kill, end): (&Instant, Instant)| {
            let held_up = self.0.iter().filter(|(began, ended)| ended > kill && *began < end);
            held_up.map(|(began, ended)| *ended - *began).max().unwrap_or_default()
        };
        let mut pauses: Vec<_> = kills.iter().zip(ends).map(longest).collect();
        pauses.sort();
        Pauses(pauses)
    }
}

impl Pauses {
    fn percentile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn longest(&self) -> Duration {
        self.percentile(100)
    }
}

impl fmt::Display for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, longest] = [50, 99, 100].map(|percent| self.percentile(percent));
        write!(f, "pause p50 {half:.1?}, p99 {most:.1?}, longest {longest:.1?}")
    }
}
