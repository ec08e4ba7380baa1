//! What a visit costs: traffic, processor time, memory.

use std::time::Instant;

use anyhow::Result;
use testkit::registry_process::Traffic;

use crate::{
    figure::{Figure, Figures},
    node::Node,
    origin::Origin,
    process::{self, MemoryWatch, Pid},
};

/// Meters that run since a scenario's begin; peaks of memory since the visit's.
#[derive(Debug)]
pub(super) struct Meters<'a> {
    memory: &'a MemoryWatch,
    before: Cpu,
    sent_before: Traffic,
    began: Instant,
}

/// Processor seconds at one moment.
#[derive(Debug, Clone, Copy)]
struct Cpu {
    daemon: f64,
    containerd: f64,
    origin: f64,
    machine: f64,
}

/// Begins to watch the memory of containerd and the snapshotter.
pub(super) fn watch_memory(node: &Node) -> Result<MemoryWatch> {
    let pids: Vec<Pid> = node.daemon_pid().into_iter().chain([node.containerd_pid()]).collect();
    Ok(MemoryWatch::start(&pids)?)
}

impl<'a> Meters<'a> {
    /// Sets them to zero.
    pub(super) fn start(node: &Node, origin: &Origin, memory: &'a MemoryWatch) -> Result<Self> {
        Ok(Self {
            memory,
            before: Cpu::now(node, origin),
            sent_before: origin.traffic()?,
            began: Instant::now(),
        })
    }

    /// Seconds from the scenario's begin to `at`.
    pub(super) fn seconds_until(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.began).as_secs_f64()
    }

    /// Adds what they show to `figures`.
    pub(super) fn read(&self, node: &Node, origin: &Origin, figures: &mut Figures) -> Result<()> {
        let traffic = origin.traffic()?;
        figures.insert(Figure::OriginBytes, (traffic.bytes - self.sent_before.bytes) as f64);
        figures.insert(Figure::OriginRequests, (traffic.requests - self.sent_before.requests) as f64);
        let now = Cpu::now(node, origin);
        figures.insert(Figure::ContainerdCpu, now.containerd - self.before.containerd);
        figures.insert(Figure::OriginCpu, now.origin - self.before.origin);
        figures.insert(Figure::MachineCpu, now.machine - self.before.machine);
        figures.insert(Figure::ContainerdMemory, self.memory.peak(node.containerd_pid()) as f64);
        if let Some(daemon) = node.daemon_pid() {
            figures.insert(Figure::SnapshotterCpu, now.daemon - self.before.daemon);
            figures.insert(Figure::SnapshotterMemory, self.memory.peak(daemon) as f64);
        }
        // What a daemon tells counts from its start, so it is told of the first scenario only.
        if self.sent_before == Traffic::default() { node.add_own_account(figures) } else { Ok(()) }
    }
}

impl Cpu {
    fn now(node: &Node, origin: &Origin) -> Self {
        Self {
            daemon: node.daemon_pid().map_or(0.0, process::cpu_seconds),
            containerd: process::cpu_seconds(node.containerd_pid()),
            origin: origin.cpu_seconds(),
            machine: process::machine_cpu_seconds(),
        }
    }
}
