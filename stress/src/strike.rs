//! Carries the plan out, each lane on a thread of its own.

use std::{
    fs,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use testkit::{Fault, On};

use crate::{
    damage::flip,
    judge::Judge,
    node::{Node, tokens},
    plan::{Lane, Misbehaviour, What},
    readers::Doing,
};

/// What strikes are carried out on.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) node: Arc<Node>,
    /// The layer that is damaged, and where its image is mounted.
    pub(crate) breaks: (String, std::path::PathBuf),
    /// When the daemon was killed.
    pub(crate) kills: Mutex<Vec<Instant>>,
}

/// How long there may be no daemon to kill.
const NO_DAEMON: Duration = Duration::from_secs(30);

/// Strikes as `lane` says, from `start` on.
pub(crate) fn strike(target: &Target, lane: &Lane, start: Instant, judge: &Judge, doing: &Doing) {
    for strike in &lane.strikes {
        if !judge.pause((start + strike.at).saturating_duration_since(Instant::now())) {
            return;
        }
        if let Err(error) = target.carry_out(strike.what, judge, doing) {
            return judge.fail(format!("{:?}: {error:#}", strike.what));
        }
    }
}

// === impl Target ===

impl Target {
    fn carry_out(&self, what: What, judge: &Judge, doing: &Doing) -> Result<()> {
        let Self { node, breaks: (key, mounted), .. } = self;
        match what {
            What::KillDaemon => return self.kill_daemon(judge),
            What::KillContainerd => {
                let _strikes = judge.strikes();
                let mut containerd = node.containerd.lock();
                containerd.kill()?;
                judge.counts.containerd_kills.fetch_add(1, Relaxed);
                containerd.start_again()?;
            }
            What::Registry(how, len) => {
                let _misbehaves = judge.misbehaves();
                for (on, fault) in faults(how) {
                    node.registry.inject(on, fault, None);
                }
                judge.counts.misbehaviours.fetch_add(1, Relaxed);
                judge.pause(len);
                node.registry.clear_faults();
            }
            What::ExpireTokens => {
                let _misbehaves = judge.strikes();
                node.registry.set_auth(tokens());
                judge.counts.expiries.fetch_add(1, Relaxed);
            }
            What::FillDisk(len) => {
                let _strikes = judge.strikes();
                node.disk.fill()?;
                judge.counts.disk_fills.fetch_add(1, Relaxed);
                judge.pause(len);
                node.disk.free()?;
            }
            What::FlipBit(place) => flip(node, key, place, mounted, judge, doing),
        }
        Ok(())
    }

    /// Kills the daemon that is there, or the next one as soon as it is.
    fn kill_daemon(&self, judge: &Judge) -> Result<()> {
        let began = Instant::now();
        let daemon = self.node.daemon.lock();
        loop {
            let pid = daemon.pid();
            // The number may be that of one that is gone.
            if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == self.node.program) {
                let _strikes = judge.strikes();
                self.kills.lock().push(Instant::now());
                if daemon.kill().is_ok() {
                    judge.counts.kills.fetch_add(1, Relaxed);
                    return Ok(());
                }
                self.kills.lock().pop();
            }
            if began.elapsed() > NO_DAEMON {
                let log = daemon.log();
                let tail: Vec<_> = log.lines().rev().take(20).collect();
                bail!("no daemon for {NO_DAEMON:?}: {}", tail.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn faults(how: Misbehaviour) -> Vec<(On, Fault)> {
    match how {
        Misbehaviour::Down => vec![(On::Any, Fault::Reset)],
        Misbehaviour::Reset => vec![(On::Blob, Fault::Reset)],
        Misbehaviour::Status(status) => vec![(On::Blob, Fault::Status(status))],
        Misbehaviour::Later(status) => vec![(On::Blob, Fault::RetryAfter(status, 1))],
        Misbehaviour::Stall => vec![(On::Blob, Fault::Stall)],
        Misbehaviour::StallBody => vec![(On::BlobAtCdn, Fault::StallBody(20_000))],
        Misbehaviour::Truncate => vec![(On::BlobAtCdn, Fault::Truncate(30_000))],
        Misbehaviour::Shorten => vec![(On::BlobAtCdn, Fault::Shorten(1))],
        Misbehaviour::WrongByte => vec![(On::BlobAtCdn, Fault::FlipBit(12_345))],
        Misbehaviour::RefusedRedirect => vec![(On::BlobAtCdn, Fault::Status(403))],
    }
}

/// Waits until another daemon serves than the one that was killed last.
pub(crate) fn wait_for_daemon(node: &Node) -> Result<()> {
    let began = Instant::now();
    while node.admin.metric("process_open_fds").is_err() {
        if began.elapsed() > NO_DAEMON {
            bail!("the daemon does not answer any more");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let exe = fs::read_link(format!("/proc/{}/exe", node.daemon.lock().pid())).context("find the daemon")?;
    anyhow::ensure!(exe == node.program, "{} serves", exe.display());
    Ok(())
}
