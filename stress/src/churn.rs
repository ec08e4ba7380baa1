//! Snapshots come and go: an image is pulled, run, mounted and read, and removed, over and over.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    ctr::PLUGIN,
    images::COMES,
    judge::{Judge, Moment},
    node::Node,
    readers::{Doing, read_some},
};

/// Pieces that are read in each round.
const READS: usize = 60;
/// A call that fails that long, over and over, does not heal.
const HEALED_WITHIN: Duration = Duration::from_secs(120);

/// Goes on until the end of the run.
pub(crate) fn churn(node: &Node, seed: u64, judge: &Judge, doing: &Doing) {
    let mut random = StdRng::seed_from_u64(seed);
    let target = node.scratch.join("comes");
    while !judge.is_ending() {
        let round = judge.counts.rounds.load(Relaxed);
        let done = repeat(judge, "pull", || node.pull(COMES).map(drop))
            && repeat(judge, "run", || run(node, round))
            && repeat(judge, "mount", || mount(node, &target));
        if done {
            read_some(&target, &node.images.truth, READS, &mut random, judge, doing);
        }
        if !done
            || !repeat(judge, "unmount", || unmount(node, &target))
            || !repeat(judge, "remove", || remove(node))
        {
            return;
        }
        judge.counts.rounds.fetch_add(1, Relaxed);
    }
}

/// Until it succeeds, or the run ends; whether it did. A call that fails while nothing strikes ends the run.
pub(crate) fn repeat(judge: &Judge, what: &str, mut call: impl FnMut() -> Result<()>) -> bool {
    let first = Instant::now();
    loop {
        let began = Moment::now();
        let Err(error) = call() else { return true };
        judge.counts.repeated.fetch_add(1, Relaxed);
        if !judge.call_may_fail(began, Moment::now()) {
            judge.fail(format!("{what} failed while nothing struck: {error:#}"));
        } else if first.elapsed() > HEALED_WITHIN {
            judge.fail(format!("{what} does not succeed: {error:#}"));
        }
        if !judge.pause(Duration::from_millis(300)) {
            return false;
        }
    }
}

/// Runs the image's program in a container, what an earlier attempt left being removed first.
fn run(node: &Node, round: u64) -> Result<()> {
    let name = node.container_name(&format!("round-{round}"));
    discard(node, &name);
    let image = node.images.reference(COMES);
    let said = node.ctr.run(&["run", "--rm", "--snapshotter", PLUGIN, &image, &name]);
    if said.is_err() {
        discard(node, &name);
    }
    ensure!(said?.contains("ready"), "the program did not become ready");
    Ok(())
}

/// Removes a container and its snapshot, as far as they are there.
pub(crate) fn discard(node: &Node, name: &str) {
    for command in
        [["tasks", "kill", "--signal=SIGKILL"], ["tasks", "delete", "--force"], ["containers", "delete", ""]]
    {
        let words: Vec<_> = command.into_iter().filter(|word| !word.is_empty()).chain([name]).collect();
        let _ = node.ctr.run(&words);
    }
    let _ = node.ctr.run(&["snapshots", "--snapshotter", PLUGIN, "rm", name]);
}

fn mount(node: &Node, target: &std::path::Path) -> Result<()> {
    // An attempt whose answer was lost has left its snapshot.
    let _ = node.unmount(target);
    node.mount(COMES, target)
}

fn unmount(node: &Node, target: &std::path::Path) -> Result<()> {
    if testkit::scratch::mounts_below(target).is_empty() {
        let key = target.to_str().context("a path in UTF-8")?;
        let left = node.ctr.first_words(&["snapshots", "--snapshotter", PLUGIN, "ls"])?;
        if left.iter().any(|name| name == key) {
            node.ctr.run(&["snapshots", "--snapshotter", PLUGIN, "rm", key])?;
        }
        return Ok(());
    }
    node.unmount(target)
}

fn remove(node: &Node) -> Result<()> {
    let image = node.images.reference(COMES);
    if node.ctr.run(&["images", "ls", "-q"])?.lines().any(|line| line == image) {
        node.ctr.run(&["images", "rm", "--sync", &image])?;
    }
    Ok(())
}
