//! Memory, descriptors and tasks of the daemon and its holder while a run goes on, and gauges at its end.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use parking_lot::Mutex;
use serde::Serialize;

use crate::node::Node;

/// Anonymous and shared memory of a daemon, at most: what is promised for a hundred layers.
const MOST_MEMORY: u64 = 64 << 20;
/// More than 2,000 tasks and descriptors are a leak, whatever is read here.
const MOST_DESCRIPTORS: u64 = 2000;
const MOST_TASKS: u64 = 200;
/// How long gauges may take to come back to zero when nobody reads any more.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
/// What must be zero when nothing goes on.
const GAUGES: &[&str] = &["starling_in_flight_memory_bytes", "starling_fuse_waiting_reads"];

/// What a process takes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Taken {
    /// RssAnon and RssShmem, in bytes.
    pub memory: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub tasks: u64,
}

/// The most that any daemon of the run took.
#[derive(Debug, Default)]
pub(crate) struct Watch(Mutex<Taken>);

// === impl Taken ===

impl Taken {
    /// Of the process `pid`; none if it is gone.
    pub(crate) fn by(pid: u32) -> Option<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        let status = fs::read_to_string(process.join("status")).ok()?;
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let descriptors = fs::read_dir(process.join("fd")).ok()?.count() as u64;
        let memory = (number("RssAnon") + number("RssShmem")) << 10;
        Some(Self { memory, descriptors, tasks: number("Threads") })
    }
}

// === impl Watch ===

impl Watch {
    /// Looks once. Says what is out of bounds.
    pub(crate) fn look(&self, pid: u32) -> Option<String> {
        let now = Taken::by(pid)?;
        let mut most = self.0.lock();
        most.memory = most.memory.max(now.memory);
        most.descriptors = most.descriptors.max(now.descriptors);
        most.tasks = most.tasks.max(now.tasks);
        let over = now.memory > MOST_MEMORY || now.descriptors > MOST_DESCRIPTORS || now.tasks > MOST_TASKS;
        over.then(|| format!("the daemon takes {now:?}"))
    }

    pub(crate) fn most(&self) -> Taken {
        *self.0.lock()
    }
}

/// Waits until nothing is in flight any more.
pub(crate) fn settle(node: &Node) -> Result<()> {
    let began = Instant::now();
    loop {
        let busy: Vec<_> = GAUGES
            .iter()
            .filter_map(|name| {
                node.admin.metric(name).map_or(Some((name, -1.0)), |v| (v != 0.0).then_some((name, v)))
            })
            .collect();
        if busy.is_empty() {
            return Ok(());
        }
        if began.elapsed() > SETTLED_WITHIN {
            bail!("nobody reads, and still: {busy:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
