//! The daemon under test, as a process of its own.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
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

use super::containerd::Plugin;

/// How long the daemon may take until its socket answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running `starlingd`; ended with SIGTERM when dropped.
#[derive(Debug)]
pub struct Starlingd {
    child: Child,
    dir: PathBuf,
}

// === impl Starlingd ===

impl Starlingd {
    /// Starts `program` with its root, socket, log and configuration below `dir`. What an earlier daemon left
    /// there is taken over.
    ///
    /// # Errors
    /// It exits or does not answer in time: the message carries its log.
    pub fn start(program: &Path, dir: &Path, config: &str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("config.toml"), config)?;
        let log = File::options().create(true).append(true).open(dir.join("starlingd.log"))?;
        let child = Command::new(program)
            .arg("--address")
            .arg(dir.join("starling.sock"))
            .arg("--config")
            .arg(dir.join("config.toml"))
            .arg("--root")
            .arg(dir.join("root"))
            .args(["--log-level", "debug"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut daemon = Self { child, dir: dir.to_owned() };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// How containerd reaches this daemon under the snapshotter name `name`.
    pub fn plugin(&self, name: &str) -> Plugin {
        Plugin { name: name.to_owned(), address: self.address(), root: self.root() }
    }

    /// The snapshots socket.
    pub fn address(&self) -> PathBuf {
        self.dir.join("starling.sock")
    }

    /// The admin socket.
    pub fn admin(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    /// The daemon's root directory.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it logged, starts before this one included.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("starlingd.log")).unwrap_or_default()
    }

    /// Sends `signal` and waits for the end.
    ///
    /// # Errors
    /// The process is gone already, or does not end in time.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        let asked = Instant::now();
        while asked.elapsed() < START_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("starlingd did not end within {START_LIMIT:?} of {signal}")
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < START_LIMIT {
            if UnixStream::connect(self.address()).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("starlingd ended at its start ({status}): {}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("starlingd did not answer within {START_LIMIT:?}: {}", self.log())
    }
}

impl Drop for Starlingd {
    fn drop(&mut self) {
        if self.end(Signal::SIGTERM).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
