//! A container of a benchmark: what it prints, and when.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use testkit::peers::containerd::Containerd;

use super::events::Events;

/// The longest that a container may take until the line that is waited for: 2 GiB at 25 Mbit/s are 12 minutes.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// A running container. One that is not ended is ended with its containerd.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    containerd: &'a Containerd,
    events: &'a Events,
    id: String,
    child: Child,
    lines: Receiver<(Instant, String)>,
    errors: Option<thread::JoinHandle<String>>,
}

impl<'a> Running<'a> {
    pub(super) fn start(
        containerd: &'a Containerd,
        events: &'a Events,
        snapshotter: &str,
        reference: &str,
        id: &str,
        command: &[&str],
    ) -> Result<Self> {
        let mut child = containerd
            .ctr_command()
            .args(["run", "--snapshotter", snapshotter, reference, id])
            .args(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start ctr run")?;
        let output = BufReader::new(child.stdout.take().context("the container's output")?);
        let mut error_output = child.stderr.take().context("the container's errors")?;
        let (say, lines) = mpsc::channel();
        thread::Builder::new().name("output".into()).spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if say.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        })?;
        let errors = thread::Builder::new().name("errors".into()).spawn(move || {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut error_output, &mut text);
            text
        })?;
        Ok(Self { containerd, events, id: id.to_owned(), child, lines, errors: Some(errors) })
    }

    /// Waits until the program prints a line that begins with `word`, and gives the moment.
    pub(crate) fn wait_for(&mut self, word: &str) -> Result<Instant> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((at, line)) if line.starts_with(word) => return Ok(at),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("no line {word:?} within {LIMIT:?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    let errors = self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
                    bail!("the container {} ended without a line {word:?}: {status}: {errors}", self.id);
                }
            }
        }
    }

    /// When containerd reported its task as started.
    pub(crate) fn started(&self) -> Option<Instant> {
        self.events.start_of(&self.id)
    }

    /// Kills and deletes it.
    pub(crate) fn end(mut self) -> Result<()> {
        self.containerd.try_ctr(&["tasks", "kill", "--signal", "SIGKILL", &self.id])?;
        self.child.wait()?;
        self.containerd.try_ctr(&["tasks", "delete", "--force", &self.id])?;
        self.containerd.ctr(&["containers", "delete", &self.id])?;
        Ok(())
    }
}
