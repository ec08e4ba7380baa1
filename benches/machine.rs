//! What a run was measured on.

use std::{fs, process::Command, thread};

use serde::{Deserialize, Serialize};
use testkit::peers::go_tools::CONTAINERD_TOOLS;

use crate::programs::root;

/// The machine, as far as it matters for the figures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processors: usize,
    pub(crate) processor: String,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Load of the last minute when the run began: other work on the machine spoils figures.
    pub(crate) load: f64,
}

/// What was measured with what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Versions {
    pub(crate) starling: String,
    pub(crate) commit: String,
    pub(crate) containerd: String,
    pub(crate) stargz_snapshotter: String,
}

/// The time, UTC, to the second.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let kilobytes = field(&read("/proc/meminfo"), "MemTotal");
        Self {
            processors: thread::available_parallelism().map_or(1, usize::from),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            memory_bytes: kilobytes.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }
}

impl Versions {
    /// Those of this run.
    pub(crate) fn this() -> Self {
        let git = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()).output();
        let modules = fs::read_to_string(root().join("benches/rival/go.mod")).unwrap_or_default();
        let stargz = modules
            .lines()
            .find_map(|line| line.trim().strip_prefix("github.com/containerd/stargz-snapshotter v"))
            .and_then(|version| version.split(' ').next());
        Self {
            starling: env!("CARGO_PKG_VERSION").to_owned(),
            commit: git.map_or_else(
                |_| String::new(),
                |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            ),
            containerd: CONTAINERD_TOOLS.first().map_or_else(String::new, |tool| tool.version.to_owned()),
            stargz_snapshotter: stargz.map_or_else(String::new, |version| format!("v{version}")),
        }
    }
}
