//! Nothing is left behind, also after Ctrl-C: the task itself is a child process, and what it started, mounted
//! and wrote is cleared when it ended or was interrupted.
//!
//! A process of its own, because a thread that cleans up would race with the one that goes on: every command
//! that is ended under its hands is followed by the next.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use testkit::{sample_image, scratch::Scratch};
use tokio::{
    process::{Child, Command},
    runtime,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// How long processes may take to end after SIGTERM, and then after SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
/// The exit status after an interrupt, as of a shell (128 + SIGINT).
const INTERRUPTED: i32 = 130;

/// What the names of the containers that are run in the scratch directory `scratch` begin with: their control groups
/// have these names too.
pub(crate) fn container_name(scratch: &Path) -> String {
    scratch.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Runs this program again with the same arguments and `--scratch DIR`, a new directory whose name begins with
/// `prefix`, and clears up after it.
///
/// # Errors
/// It cannot be started, or something cannot be removed.
pub(crate) fn supervise(prefix: &str) -> Result<process::ExitCode> {
    // Orphans, as containerd's shims are, come to this process and are found as its descendants.
    prctl::set_child_subreaper(true).context("become the parent of orphans")?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Handlers first: from here on no signal ends this process before it has cleared up.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let scratch = Scratch::new(prefix)?;
        let mut worker = start(scratch.path())?;
        let status = tokio::select! {
            status = worker.wait() => Some(status?),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            _ = hangup.recv() => None,
        };
        if status.is_none() {
            eprintln!("interrupted: cleaning up");
            // It must start nothing more while the rest is ended.
            let _ = worker.start_kill();
            let _ = worker.wait().await;
        }
        end_descendants().await?;
        remove_control_groups(&container_name(scratch.path()));
        scratch.clear()?;
        sample_image::discard_unfinished()?;
        let code = status.map_or(INTERRUPTED, |status| status.code().unwrap_or(1));
        Ok(process::ExitCode::from(u8::try_from(code).unwrap_or(1)))
    })
}

/// In a process group of its own: Ctrl-C is for the supervisor alone, which ends the others in order.
fn start(scratch: &Path) -> Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--scratch")
        .arg(scratch)
        .env("TMPDIR", scratch)
        .process_group(0)
        .spawn()
        .context("start the task's process")
}

/// Ends everything that was started from here, children of children included.
async fn end_descendants() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut waited = Duration::ZERO;
        loop {
            let living = descendants();
            if living.is_empty() {
                return Ok(());
            }
            if waited >= END_LIMIT {
                break;
            }
            // New ones may have been started since: SIGKILL is for whatever is there.
            if waited.is_zero() || signal == Signal::SIGKILL {
                for pid in &living {
                    let _ = kill(*pid, signal);
                }
            }
            sleep(POLL).await;
            waited += POLL;
        }
    }
    bail!("processes do not end: {:?}", descendants())
}

/// Living processes below this one.
fn descendants() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let mut zombies = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // pid (name) state parent ...: the name may hold spaces and brackets (proc_pid_stat(5)).
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse().ok()));
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
        if state == Some("Z") {
            zombies.push(pid);
        }
    }
    let mut found = Vec::new();
    let mut parents = vec![i32::try_from(process::id()).unwrap_or(0)];
    while let Some(parent) = parents.pop() {
        let below = children.remove(&parent).unwrap_or_default();
        parents.extend(&below);
        found.extend(below);
    }
    found.retain(|pid| !zombies.contains(pid));
    found.into_iter().map(Pid::from_raw).collect()
}

/// Removes the control groups of the containers whose names begin with `name`, which runc cannot do once it was
/// ended. They are one hierarchy, or one for each controller.
fn remove_control_groups(name: &str) {
    let root = PathBuf::from("/sys/fs/cgroup");
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in entries(&root).chain([root.clone()]) {
        for group in entries(&hierarchy.join("default")) {
            if group.file_name().is_some_and(|group| group.to_string_lossy().starts_with(name)) {
                // Not there, or not empty: containerd had removed it, or it belongs to someone else.
                let _ = fs::remove_dir(group);
            }
        }
    }
}
