//! What processes cost, from `/proc`.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::unistd::{SysconfVar, sysconf};

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(25);

/// A process by its number; 0 stands for none.
pub(crate) type Pid = u32;

/// Processor seconds of `pid`, user and system, with children that it waited for (`proc_pid_stat(5)`).
pub(crate) fn cpu_seconds(pid: Pid) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold spaces; the fields after it begin with the third.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return 0.0 };
    let ticks: u64 = fields.split(' ').skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / ticks_per_second()
}

/// Processor seconds of the whole machine that were not idle, from the first line of `/proc/stat`: user, nice,
/// system, then idle and waiting for disks, which do not count, then interrupts.
pub(crate) fn machine_cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|f| f.parse().ok())
        .collect();
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|&index: &usize| fields.get(index)).sum();
    busy as f64 / ticks_per_second()
}

fn ticks_per_second() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100.0, |ticks| ticks as f64)
}

/// `RssAnon` + `RssShmem` of `pid` in bytes: memory that is its own, not the page cache of files.
pub(crate) fn anonymous_memory(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes: u64 = status
        .lines()
        .filter_map(|line| line.strip_prefix("RssAnon:").or_else(|| line.strip_prefix("RssShmem:")))
        .filter_map(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .sum();
    kilobytes * 1024
}

/// Watches the memory of processes on a thread; [`Self::peak`] may be asked at any time.
#[derive(Debug)]
pub(crate) struct MemoryWatch {
    watched: Arc<[(Pid, AtomicU64)]>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    /// Begins to watch.
    pub(crate) fn start(pids: &[Pid]) -> std::io::Result<Self> {
        let watched: Arc<[(Pid, AtomicU64)]> = pids.iter().map(|&pid| (pid, AtomicU64::new(0))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (Arc::clone(&watched), Arc::clone(&stop));
        let thread = thread::Builder::new().name("memory".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for (pid, peak) in seen.iter() {
                    peak.fetch_max(anonymous_memory(*pid), Ordering::Relaxed);
                }
                thread::sleep(SAMPLE_EVERY);
            }
        })?;
        Ok(Self { watched, stop, thread: Some(thread) })
    }

    /// The most that `pid` had so far, in bytes.
    pub(crate) fn peak(&self, pid: Pid) -> u64 {
        let watched = self.watched.iter().find(|(watched, _)| *watched == pid);
        watched.map_or(0, |(_, peak)| peak.load(Ordering::Relaxed))
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_and_memory_of_this_process_are_found() {
        let own = std::process::id();
        let before = cpu_seconds(own);
        let mut sum = 0u64;
        while cpu_seconds(own) - before < 0.05 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(machine_cpu_seconds() > before);
        assert!(anonymous_memory(own) > 100 << 10);
    }

    #[test]
    fn a_peak_is_remembered_after_the_memory_was_given_back() {
        let own = std::process::id();
        let watch = MemoryWatch::start(&[own]).unwrap();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        thread::sleep(4 * SAMPLE_EVERY);
        drop(block);
        assert!(watch.peak(own) > 64 << 20);
        assert_eq!(watch.peak(1), 0);
    }

    #[test]
    fn a_process_that_is_gone_costs_nothing() {
        assert_eq!(anonymous_memory(0), 0);
        assert!(cpu_seconds(0).abs() < f64::EPSILON);
    }
}
