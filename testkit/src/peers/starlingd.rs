//! The daemon under test, as a process of its own; by itself or under `starling-holder`.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{containerd::Plugin, process::Process};

/// How long the daemon may take until its socket answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running `starlingd`; ended with SIGTERM when dropped.
#[derive(Debug)]
pub struct Starlingd {
    /// The daemon, or its holder.
    process: Process,
    dir: PathBuf,
    held: bool,
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
        let command = Command::new(program);
        Self::spawn(command, dir, config, level, false)
    }

    /// As [`Self::start`], but started and held by the program `holder`, which starts it again when it ends.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_held(holder: &Path, program: &Path, dir: &Path, config: &str) -> Result<Self> {
        Self::start_held_logging(holder, program, dir, config, "debug")
    }

    /// As [`Self::start_held`], with another log level.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_held_logging(
        holder: &Path,
        program: &Path,
        dir: &Path,
        config: &str,
        level: &str,
    ) -> Result<Self> {
        let mut command = Command::new(holder);
        command.arg("--socket").arg(dir.join("holder.sock")).arg("--").arg(program);
        Self::spawn(command, dir, config, level, true)
    }

    fn spawn(mut command: Command, dir: &Path, config: &str, level: &str, held: bool) -> Result<Self> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("config.toml"), config)?;
        command
            .arg("--address")
            .arg(dir.join("starling.sock"))
            .arg("--config")
            .arg(dir.join("config.toml"))
            .arg("--root")
            .arg(dir.join("root"))
            .args(["--log-level", level]);
        let process = Process::spawn("starlingd", &mut command, &dir.join("starlingd.log"))?;
        let mut daemon = Self { process, dir: dir.to_owned(), held };
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

    /// Its process number; of one that is held, that of the latest.
    pub fn pid(&self) -> u32 {
        let held = || fs::read_to_string(self.root().join("lock")).ok()?.trim().parse().ok();
        if self.held { held().unwrap_or(0) } else { self.process.id() }
    }

    /// The process that was started: the holder of one that is held, else the daemon.
    pub fn holder(&self) -> u32 {
        self.process.id()
    }

    /// Ends one that is held by SIGKILL; its holder starts the next.
    ///
    /// # Errors
    /// There is no such process right now.
    pub fn kill(&self) -> Result<()> {
        let pid = i32::try_from(self.pid())?;
        anyhow::ensure!(self.held && pid > 0, "no daemon that is held");
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("kill process {pid}"))
    }

    /// All it logged, starts before this one included.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Sends `signal` and waits for the end; to the holder if there is one.
    ///
    /// # Errors
    /// The process is gone already, or does not end in time.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.process.end(signal)
    }
}
