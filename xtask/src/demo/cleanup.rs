//! Nothing is left behind, also after Ctrl-C: children are ended, mounts undone, the scratch directory removed.

use std::{
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{SigSet, Signal, kill},
    unistd::Pid,
};
use testkit::scratch::Scratch;

/// A scratch directory that is cleared when dropped and when the user interrupts.
#[derive(Debug)]
pub(crate) struct Guarded {
    scratch: Scratch,
}

impl Guarded {
    /// Makes the directory and takes over SIGINT and SIGTERM: from now on they clear it and end the program.
    /// Must be called before other threads are started, which inherit the blocked signals.
    pub(crate) fn new() -> Result<Self> {
        let scratch = Scratch::new("starling-demo-")?;
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block().context("block signals")?;
        let dir = scratch.path().to_owned();
        thread::Builder::new().name("interrupt".into()).spawn(move || {
            if signals.wait().is_ok() {
                eprintln!("interrupted: cleaning up");
                clear(&dir);
                process::exit(130);
            }
        })?;
        Ok(Self { scratch })
    }

    pub(crate) fn path(&self) -> &Path {
        self.scratch.path()
    }
}

/// Ends every process that was started from here or mentions `dir`, then unmounts and removes.
fn clear(dir: &Path) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for pid in processes_of(dir) {
            let _ = kill(pid, signal);
        }
        for _ in 0..40 {
            if processes_of(dir).is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
    for mount in testkit::scratch::mounts_below(dir) {
        let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
    }
    let _ = std::fs::remove_dir_all(dir);
}

/// Processes whose command line names `dir`: the daemons, containerd's shims, and their clients.
fn processes_of(dir: &Path) -> Vec<Pid> {
    let needle = dir.as_os_str().as_encoded_bytes().to_owned();
    let own = process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let command = std::fs::read(PathBuf::from("/proc").join(pid.to_string()).join("cmdline")).ok()?;
            let named = command.windows(needle.len()).any(|window| window == needle);
            (named && pid != own).then(|| Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)))
        })
        .collect()
}
