//! Every process that descends from the test's own, and what can be read of it in `/proc` while it lives.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often it is looked: programs that are to be seen must live longer.
const PAUSE: Duration = Duration::from_millis(10);

/// A thread that looks at all processes until it is told to end.
pub(super) struct Watch {
    end: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<Seen>>,
}

/// A process at one moment.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    pub(super) arguments: Vec<u8>,
    pub(super) environment: Vec<u8>,
}

// === impl Watch ===

impl Watch {
    pub(super) fn start() -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let thread = thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !ended.load(Relaxed) {
                seen.extend(descendants().into_iter().filter_map(look));
                thread::sleep(PAUSE);
            }
            seen
        });
        Self { end, thread }
    }

    /// What was seen so far.
    pub(super) fn end(self) -> BTreeSet<Seen> {
        self.end.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// Nothing of a process that has ended, or became another program meanwhile.
fn look(pid: u32) -> Option<Seen> {
    let arguments = || fs::read(format!("/proc/{pid}/cmdline")).ok();
    let before = arguments()?;
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    (arguments()? == before).then_some(Seen { arguments: before, environment })
}

/// The children of this process, theirs, and so on.
fn descendants() -> BTreeSet<u32> {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let (mut family, ourselves) = (BTreeSet::new(), std::process::id());
    loop {
        let known = |pid: &u32| *pid == ourselves || family.contains(pid);
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| known(parent) && !known(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return family;
        }
        family.extend(more);
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold spaces and brackets.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
