//! What the daemon itself takes: descriptors and memory, from `/proc/self`.

use std::{
    fs,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::metrics::{Samples, Source, names};

/// This process.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    started: SystemTime,
    since: Instant,
}

/// Resident memory in bytes, as `/proc/self/status` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// All resident pages.
    pub resident: u64,
    /// Those that are not the page cache of files.
    pub anonymous: u64,
}

// === impl Process ===

impl Process {
    /// To be called when the daemon starts.
    pub fn start() -> Self {
        Self { started: SystemTime::now(), since: Instant::now() }
    }

    /// Seconds since the start.
    pub fn uptime(&self) -> u64 {
        self.since.elapsed().as_secs()
    }

    /// Resident memory now; zeros if the kernel does not tell.
    pub fn memory(&self) -> Memory {
        memory(&fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    /// Open file descriptors now.
    pub fn open_descriptors(&self) -> u64 {
        fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
    }
}

impl Source for Process {
    fn sample(&self, samples: &mut Samples) {
        let memory = self.memory();
        samples.value(&names::OPEN_FDS, self.open_descriptors());
        samples.value(&names::RESIDENT_MEMORY, memory.resident);
        samples.value(&names::ANONYMOUS_MEMORY, memory.anonymous);
        samples.value(
            &names::START_TIME,
            self.started.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        );
        samples.labelled(&names::BUILD_INFO, [(crate::VERSION.to_owned(), 1)]);
    }
}

fn memory(status: &str) -> Memory {
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Memory { resident: kib("VmRSS") << 10, anonymous: (kib("RssAnon") + kib("RssShmem")) << 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let status =
            "Name:\tx\nVmRSS:\t   2048 kB\nRssAnon:\t 1024 kB\nRssFile:\t 1020 kB\nRssShmem:\t 4 kB\n";
        assert_eq!(memory(status), Memory { resident: 2 << 20, anonymous: 1028 << 10 });
        assert_eq!(memory(""), Memory::default());
        let process = Process::start();
        assert!(process.memory().resident > 0 && process.open_descriptors() > 2);
    }
}
