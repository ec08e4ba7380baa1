//! Everything is removed, and then nothing may be left: no layer, no snapshot, no mount, no process, no file that a
//! crash left half-written.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use testkit::scratch::mounts_below;

use crate::{churn, ctr::PLUGIN, images::BREAKS, node::Node, watch::Taken};

/// How long removing may take.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Connections that a daemon keeps to registries and clients for the next request.
const SPARE: u64 = 16;

/// Removes everything by containerd, as people do, and looks at what the daemon has then.
pub(crate) fn remove_all(node: &Node, mounted: &[PathBuf], fresh: Taken) -> Result<()> {
    for target in mounted {
        node.unmount(target)?;
    }
    for container in node.ctr.run(&["containers", "ls", "-q"])?.lines() {
        churn::discard(node, container);
    }
    for lease in node.ctr.run(&["leases", "ls", "-q"])?.lines() {
        node.ctr.run(&["leases", "delete", lease])?;
    }
    for image in node.ctr.run(&["images", "ls", "-q"])?.lines() {
        node.ctr.run(&["images", "rm", image])?;
    }
    remove_snapshots(node)?;
    // The last removal is what containerd follows by a clean-up.
    node.pull(BREAKS)?;
    node.ctr.run(&["images", "rm", "--sync", &node.images.reference(BREAKS)])?;
    let listed = node.ctr.first_words(&["snapshots", "--snapshotter", PLUGIN, "ls"])?;
    ensure!(listed.is_empty(), "containerd still has {listed:?}");
    eventually("layers and snapshots are gone", || {
        let left: Vec<_> = ["layers", "snapshotter/snapshots", "snapshotter/l", "snapshotter/p"]
            .iter()
            .flat_map(|dir| names(&node.root.join(dir)))
            .collect();
        if left.is_empty() { Ok(()) } else { bail!("left: {left:?}") }
    })?;
    eventually("the daemon is as at its start", || {
        let now = Taken::by(node.daemon.lock().pid()).context("there is no daemon")?;
        ensure!(now.descriptors <= fresh.descriptors + SPARE, "{fresh:?} at first, now {now:?}");
        Ok(())
    })?;
    let mounts = mounts_below(&node.root);
    ensure!(mounts.len() == 3, "the disk and the two mounts of layers, but: {mounts:?}");
    Ok(())
}

/// Snapshots of calls that were cut off, children before parents.
fn remove_snapshots(node: &Node) -> Result<()> {
    eventually("snapshots can be removed", || {
        let listed = node.ctr.first_words(&["snapshots", "--snapshotter", PLUGIN, "ls"])?;
        for key in &listed {
            let _ = node.ctr.run(&["snapshots", "--snapshotter", PLUGIN, "rm", key]);
        }
        ensure!(listed.is_empty(), "still there: {listed:?}");
        Ok(())
    })
}

/// Ends the daemon in order, and looks at what it leaves.
pub(crate) fn end_daemon(node: &Node) -> Result<()> {
    let status = node.daemon.lock().end(Signal::SIGTERM)?;
    ensure!(status.success(), "the holder ended with {status}");
    let mounts = mounts_below(&node.root);
    ensure!(mounts.len() == 1, "the disk, but: {mounts:?}");
    let running: Vec<_> = processes(&node.directory);
    ensure!(running.is_empty(), "still running: {running:?}");
    // What is unfinished is hidden, or below a name that says so.
    let hidden = |dir: &Path| names(dir).into_iter().filter(|name| name.starts_with('.')).collect::<Vec<_>>();
    for dir in [&node.directory, &node.root, &node.root.join("snapshotter"), &node.root.join("images")] {
        let left = hidden(dir);
        ensure!(left.is_empty(), "left in {}: {left:?}", dir.display());
    }
    Ok(())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Processes whose arguments name something below `dir`.
fn processes(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy().into_owned();
    let lines = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&dir).then_some(line)
    });
    // containerd knows the daemon's address from its configuration, not from its arguments.
    lines.collect()
}

fn eventually(what: &str, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    loop {
        match check() {
            Ok(()) => return Ok(()),
            Err(error) if began.elapsed() > GONE_WITHIN => {
                return Err(error.context(format!("not so: {what}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
