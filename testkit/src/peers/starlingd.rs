//! The daemon under test, as a process of its own.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{containerd::Plugin, process::Process};

/// How long the daemon may take until its socket answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running `starlingd`; ended with SIGTERM when dropped.
#[derive(Debug)]
pub struct Starlingd {
    process: Process,
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
        Self::start_logging(program, dir, config, "debug")
    }

    /// As [`Self::start`], with another log level: what is measured must not spend its time on logging.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_logging(program: &Path, dir: &Path, config: &str, level: &str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("config.toml"), config)?;
        let mut command = Command::new(program);
        command
            .arg("--address")
            .arg(dir.join("starling.sock"))
            .arg("--config")
            .arg(dir.join("config.toml"))
            .arg("--root")
            .arg(dir.join("root"))
            .args(["--log-level", level]);
        let process = Process::spawn("starlingd", &mut command, &dir.join("starlingd.log"))?;
        let mut daemon = Self { process, dir: dir.to_owned() };
        let address = daemon.address();
        daemon.process.wait_until(START_LIMIT, || UnixStream::connect(&address).is_ok())?;
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
        self.process.id()
    }

    /// All it logged, starts before this one included.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Sends `signal` and waits for the end.
    ///
    /// # Errors
    /// The process is gone already, or does not end in time.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.process.end(signal)
    }
}
