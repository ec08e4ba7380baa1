//! A peer's process: started with its output in a log file, ended when dropped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a process may take to end after SIGTERM: dockerd gives its containers 15 seconds.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How much of a log an error carries.
const LOG_LINES: usize = 40;

/// A running process; ended with SIGTERM when dropped, with SIGKILL if it does not heed that.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    /// Starts `command`, which errors call `name`. What it prints is appended to the file `log`.
    pub(super) fn spawn(name: &'static str, command: &mut Command, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { child, name, log: log.to_owned() })
    }

    /// Waits until `ready` holds, for `limit` at most. The error carries the end of the log.
    pub(super) fn wait_until(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let (name, started) = (self.name, Instant::now());
        while started.elapsed() < limit {
            if ready() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{name} ended at its start ({status}): {}", self.end_of_log());
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("{name} did not answer within {limit:?}: {}", self.end_of_log())
    }

    /// Its process number.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// All that it printed, and those before it into the same file.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends `signal` and waits for the end.
    pub(super) fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        let asked = Instant::now();
        while asked.elapsed() < END_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("{} did not end within {END_LIMIT:?} of {signal}", self.name)
    }

    fn end_of_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the last that {} said:\n{}", self.name, self.end_of_log());
        }
        if self.end(Signal::SIGTERM).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
