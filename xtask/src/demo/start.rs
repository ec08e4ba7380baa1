//! One cold start: fresh containerd, fresh `starlingd`, pull, run, wait for the program.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use testkit::{
    peers::{
        containerd::{Containerd, Plugin},
        rival::Rival,
        starlingd::Starlingd,
    },
    scratch::mounts_below,
};

use super::images::Images;
use crate::supervise::container_name;

/// How the image gets to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// containerd's overlayfs snapshotter: every layer is downloaded and unpacked first.
    FullPull,
    /// Starling.
    Lazy,
    /// stargz-snapshotter in its default configuration, with the same image as Starling.
    Rival,
}

/// What one cold start took, from the request to pull.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) kind: Kind,
    /// Until the pull was done.
    pub(crate) pulled: Duration,
    /// Until the program was ready.
    pub(crate) ready: Duration,
    /// Bytes that the registry had sent by then.
    pub(crate) bytes: u64,
    /// Requests that the registry had answered by then.
    pub(crate) requests: u64,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FullPull => "full pull",
            Self::Lazy => "starling",
            Self::Rival => "stargz",
        })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<9}  pulled {:5.2} s  ready {:5.2} s  {:6.1} MB in {} requests",
            self.kind.to_string(),
            self.pulled.as_secs_f64(),
            self.ready.as_secs_f64(),
            self.bytes as f64 / 1e6,
            self.requests
        )
    }
}

/// Pulls and runs the image once with nothing kept from earlier runs.
///
/// # Errors
/// Something does not start, or the program ends without the line that means it is ready.
pub(crate) fn cold_start(scratch: &Path, images: &Images, kind: Kind, line: Option<&str>) -> Result<Sample> {
    let dir = tempfile::Builder::new().prefix("run-").tempdir_in(scratch)?;
    let image = if kind == Kind::FullPull { images.plain() } else { images.estargz() };
    let served = Served::start(&dir.path().join("snapshotter"), images, kind)?;
    let plugin = served.plugin();
    let snapshotter = plugin.as_ref().map_or("overlayfs", |plugin| plugin.name.as_str());
    let containerd = Containerd::start(&dir.path().join("containerd"), plugin.as_ref())?;
    drop_page_cache();
    images.registry.clear_requests();
    let asked = Instant::now();
    containerd.ctr(&["images", "pull", "--plain-http", "--snapshotter", snapshotter, &image])?;
    let pulled = asked.elapsed();
    let name = container_name(scratch);
    run_until_ready(&containerd, &["run", "--snapshotter", snapshotter, &image, &name], line)?;
    let ready = asked.elapsed();
    let bytes = images.registry.bytes_sent();
    let requests = images.registry.requests().len() as u64;
    containerd.ctr(&["containers", "delete", &name])?;
    drop(containerd);
    drop(served);
    for mount in mounts_below(dir.path()) {
        nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("unmount {}", mount.display()))?;
    }
    Ok(Sample { kind, pulled, ready, bytes, requests })
}

/// The snapshotter of a cold start, as a process; ended when dropped.
enum Served {
    Containerd,
    Starling(Starlingd),
    Rival(Rival),
}

impl Served {
    fn start(dir: &Path, images: &Images, kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::FullPull => Self::Containerd,
            Kind::Lazy => Self::Starling(Starlingd::start(&images.starlingd(), dir, "")?),
            Kind::Rival => Self::Rival(Rival::start(dir)?),
        })
    }

    fn plugin(&self) -> Option<Plugin> {
        match self {
            Self::Containerd => None,
            Self::Starling(daemon) => Some(daemon.plugin("starling")),
            Self::Rival(rival) => Some(rival.plugin("stargz")),
        }
    }
}

/// Runs the image's command by `ctr` with `arguments`, the last of which is the container's name; returns when it
/// prints `line`, or when it ends if there is none to wait for. Its error stream is shown if that fails: warnings of
/// containerd about the machine are not news.
fn run_until_ready(containerd: &Containerd, arguments: &[&str], line: Option<&str>) -> Result<()> {
    let mut errors = tempfile::tempfile()?;
    let mut child = containerd
        .ctr_command()
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(errors.try_clone()?)
        .spawn()
        .context("run the image")?;
    let mut said = || {
        let mut text = String::new();
        let _ = errors.seek(SeekFrom::Start(0)).and_then(|_| errors.read_to_string(&mut text));
        text
    };
    let output = BufReader::new(child.stdout.take().context("the run's output")?);
    let mut seen = false;
    for text in output.lines() {
        if line.is_some_and(|line| text.as_deref().is_ok_and(|text| text.contains(line))) {
            seen = true;
            break;
        }
    }
    if let Some(line) = line.filter(|_| !seen) {
        bail!("the program ended without the line {line:?}: {}", said());
    }
    let name = arguments.last().copied().unwrap_or_default();
    if seen {
        containerd.try_ctr(&["tasks", "kill", "--signal", "SIGKILL", name])?;
        child.wait()?;
        containerd.try_ctr(&["tasks", "delete", "--force", name])?;
        return Ok(());
    }
    let status = child.wait()?;
    ensure!(status.success(), "the program ended with {status}: {}", said());
    Ok(())
}

/// A cold start reads from the disk what it reads.
fn drop_page_cache() {
    nix::unistd::sync();
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
}
