//! A run, from the first process to the last look.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    Options, Report,
    churn::{churn, discard},
    container::Container,
    images::{BREAKS, STAYS},
    judge::{HANG, Judge},
    node::Node,
    plan::{Plan, What},
    progress::Progress,
    pulse::{Beats, Pulse},
    readers::{Doing, Thread, read_all, read_on, spawn},
    strike::{self, Target},
    teardown,
    watch::{Taken, Watch, settle},
};

/// Overlay readers of the image that stays, on two mounts.
const READERS: u64 = 3;
/// How long it may take until what was fetched is on record, so that a kill does not lose it.
const RECORDED: Duration = Duration::from_secs(3);
/// How long containers may take until they read.
const BEGUN_WITHIN: Duration = Duration::from_secs(120);

/// All that a run has.
struct Stage {
    node: Arc<Node>,
    judge: Arc<Judge>,
    target: Arc<Target>,
    mounted: Vec<PathBuf>,
    containers: Vec<Container>,
    pulse: Option<Pulse>,
    fresh: Taken,
    fresh_holder: Taken,
}

/// What would strike when, for people. Without a seed it is another plan each time.
pub fn plan(options: &Options) -> String {
    Plan::new(options.seed(), options.seconds, options.kills(), &options.only).to_string()
}

/// Runs everything below `scratch` with the programs in `programs`. The report tells whether it went well.
///
/// # Errors
/// Something cannot be set up.
pub fn run(options: &Options, programs: &Path, scratch: &Path) -> Result<Report> {
    let (seed, seconds) = (options.seed(), options.seconds);
    let plan = Plan::new(seed, seconds, options.kills(), &options.only);
    let mut progress = Progress::new();
    progress.stage(&format!(
        "seed {seed}: {seconds} s, {} kills of the daemon",
        plan.count(|w| w == What::KillDaemon)
    ));
    progress.stage("registry, daemon, containerd, images");
    let mut stage = Stage::set_up(programs, scratch, seed, seconds)?;
    progress.stage("faults strike");
    let beats = Arc::new(Beats::default());
    let watch = Watch::default();
    let began = Instant::now();
    let threads = stage.threads(&plan, seed, began, &beats)?;
    let (strikers, readers) = threads;
    stage.watch_over(&strikers, &readers, seconds, &watch, &mut progress)?;
    let ran = began.elapsed();
    stage.judge.end();
    join(strikers.into_iter().chain(readers).collect(), &stage.judge);
    let pauses = beats.pauses(&stage.target.kills.lock());
    if stage.judge.failures().is_empty() {
        progress.stage("what is left");
        if let Err(error) = stage.look_back() {
            stage.judge.fail(format!("{error:#}"));
        }
    }
    let mut report = Report::new(seed, ran, &stage.judge, &pauses, watch.most());
    report.bound_pauses(options.pause_p99);
    if !report.failures.is_empty() {
        eprintln!("{}", last_lines(&stage.node.daemon.lock().log(), 60));
    }
    Ok(report)
}

// === impl Stage ===

impl Stage {
    /// Nothing strikes yet: everyone has begun to read when this is done.
    fn set_up(programs: &Path, scratch: &Path, seed: u64, seconds: u64) -> Result<Self> {
        let node = Arc::new(Node::start(programs, scratch)?);
        let judge = Arc::new(Judge::default());
        let taken = |pid| Taken::by(pid).context("the daemon is gone");
        let daemon = node.daemon.lock();
        let (fresh, fresh_holder) = (taken(daemon.pid())?, taken(daemon.holder())?);
        drop(daemon);
        node.pull(STAYS)?;
        node.pull(BREAKS)?;
        let mounted: Vec<_> = ["first", "second", "breaks"].map(|name| scratch.join(name)).into();
        for (target, repository) in mounted.iter().zip([STAYS, STAYS, BREAKS]) {
            node.mount(repository, target)?;
        }
        let pulse = Some(Pulse::open(&mounted[0], &node.images.truth)?);
        read_all(&mounted[2], &node.images.broken_truth, &judge, &Doing::default());
        let count = 2 + (seconds / 120).min(4);
        let containers: Vec<_> =
            (0..count).map(|n| Container::start(&node, n, seed)).collect::<Result<_>>()?;
        let asked = Instant::now();
        while !containers.iter().all(Container::reads) {
            ensure!(asked.elapsed() < BEGUN_WITHIN, "the containers do not begin to read");
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(RECORDED);
        let breaks = (node.admin.layer(&node.images.broken_layer)?, mounted[2].clone());
        let target = Arc::new(Target { node: Arc::clone(&node), breaks, kills: Default::default() });
        Ok(Self { node, judge, target, mounted, containers, pulse, fresh, fresh_holder })
    }

    /// Those who strike, and those who read.
    fn threads(
        &mut self,
        plan: &Plan,
        seed: u64,
        start: Instant,
        beats: &Arc<Beats>,
    ) -> Result<(Vec<Thread>, Vec<Thread>)> {
        let (mut strikers, mut readers) = (Vec::new(), Vec::new());
        for lane in plan.lanes.clone() {
            let (target, judge) = (Arc::clone(&self.target), Arc::clone(&self.judge));
            strikers.push(spawn(lane.kind.name(), move |doing| {
                strike::strike(&target, &lane, start, &judge, doing)
            })?);
        }
        for n in 0..READERS {
            let (node, judge) = (Arc::clone(&self.node), Arc::clone(&self.judge));
            let root = self.mounted[usize::from(n % 2 == 1)].clone();
            let read =
                move |doing: &Doing| read_on(&root, &node.images.truth, seed ^ (n + 100), &judge, doing);
            readers.push(spawn("reader", read)?);
        }
        let (node, judge) = (Arc::clone(&self.node), Arc::clone(&self.judge));
        readers.push(spawn("comes and goes", move |doing| churn(&node, seed, &judge, doing))?);
        if let Some(pulse) = self.pulse.take() {
            let (beats, judge) = (Arc::clone(beats), Arc::clone(&self.judge));
            readers.push(spawn("pulse", move |doing| pulse.beat(&beats, &judge, doing))?);
        }
        Ok((strikers, readers))
    }

    /// Until every strike was carried out and the time is over, or something failed.
    fn watch_over(
        &mut self,
        strikers: &[Thread],
        readers: &[Thread],
        seconds: u64,
        watch: &Watch,
        progress: &mut Progress,
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            let done = strikers.iter().all(|thread| thread.handle.is_finished());
            if self.judge.is_ending() || (done && began.elapsed() >= Duration::from_secs(seconds)) {
                progress.clear();
                return Ok(());
            }
            for container in &mut self.containers {
                container.listen(&self.judge);
            }
            for thread in strikers.iter().chain(readers) {
                if let Some(what) = thread.doing.hangs() {
                    self.judge.fail(format!("{}: {what}", thread.name));
                }
            }
            if let Some(over) = watch.look(self.node.daemon.lock().pid()) {
                self.judge.fail(over);
            }
            let counts = &self.judge.counts;
            progress.show(&format!(
                "{:4} s  {} kills, {} misbehaviours, {} rounds  {} + {} reads compared, {} refused",
                began.elapsed().as_secs(),
                counts.kills.load(Relaxed),
                counts.misbehaviours.load(Relaxed),
                counts.rounds.load(Relaxed),
                counts.reads.load(Relaxed),
                counts.container_reads.load(Relaxed),
                counts.refused.load(Relaxed),
            ));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The readers have ended: everything must come to rest, and go.
    fn look_back(&mut self) -> Result<()> {
        strike::wait_for_daemon(&self.node)?;
        for container in &mut self.containers {
            container.listen(&self.judge);
            discard(&self.node, &container.name);
        }
        settle(&self.node)?;
        teardown::remove_all(&self.node, &self.mounted, self.fresh)?;
        let holder = Taken::by(self.node.daemon.lock().holder()).context("the holder is gone")?;
        ensure!(
            holder.descriptors <= self.fresh_holder.descriptors + 1
                && holder.tasks <= self.fresh_holder.tasks,
            "the holder took {:?} at first and takes {holder:?} now",
            self.fresh_holder
        );
        teardown::end_daemon(&self.node)
    }
}

/// Waits for threads; one that does not end is a failure, and is left.
fn join(threads: Vec<Thread>, judge: &Judge) {
    let asked = Instant::now();
    for thread in threads {
        while !thread.handle.is_finished() && asked.elapsed() < HANG * 2 {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !thread.handle.is_finished() {
            judge.fail(format!("{} does not end", thread.name));
        } else if thread.handle.join().is_err() {
            judge.fail(format!("{} broke down", thread.name));
        }
    }
}

fn last_lines(log: &str, count: usize) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
