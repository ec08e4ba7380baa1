//! A machine as a contender finds it: a fresh containerd and a fresh snapshotter, with nothing kept.

mod container;
mod events;
mod starling_metrics;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::Signal,
};
use tempfile::TempDir;
use testkit::{
    peers::{
        containerd::{Containerd, Plugin},
        rival::Rival,
        starlingd::Starlingd,
    },
    scratch::mounts_below,
};

use self::events::Events;
pub(crate) use self::{container::Running, starling_metrics::DaemonState};
use crate::{
    contender::Contender,
    disk,
    figure::{Figure, Figures},
    process::Pid,
    programs::Programs,
};

/// Where Starling keeps profiles, below what it is started in.
const PROFILES: &str = "root/profiles";

/// Containerd with its snapshotter; ended, unmounted and removed when dropped.
#[derive(Debug)]
pub(crate) struct Node {
    // In the order in which they have to end.
    events: Events,
    containerd: Containerd,
    daemon: Daemon,
    snapshotter: &'static str,
    /// What the names of containers begin with: control groups have these names too, and are found by them.
    prefix: String,
    dir: TempDir,
}

/// The snapshotter's process.
#[derive(Debug)]
enum Daemon {
    /// Part of containerd.
    Containerd,
    Starling(Starlingd),
    Stargz(Rival),
}

impl Node {
    /// Starts everything fresh in a new directory below `scratch`; Starling finds `profiles` there, if any.
    pub(crate) fn start(
        scratch: &Path,
        programs: &Programs,
        contender: Contender,
        profiles: Option<&Path>,
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("node-").tempdir_in(scratch)?;
        let setup = contender.setup();
        let home = dir.path().join("snapshotter");
        let daemon = match contender {
            Contender::Overlayfs | Contender::OverlayfsParallel | Contender::Erofs => Daemon::Containerd,
            Contender::Stargz | Contender::StargzTuned => {
                Daemon::Stargz(Rival::start_program(&programs.rival, &home, setup.daemon)?)
            }
            Contender::Starling | Contender::StarlingProfile | Contender::StarlingOnDemand => {
                if let Some(profiles) = profiles {
                    copy_files(profiles, &home.join(PROFILES))?;
                }
                Daemon::Starling(Starlingd::start_logging(&programs.starlingd, &home, setup.daemon, "info")?)
            }
        };
        let plugin = daemon.plugin(setup.snapshotter);
        let containerd =
            Containerd::start_configured(&dir.path().join("containerd"), plugin.as_ref(), &setup.containerd)?;
        let events = Events::follow(&containerd)?;
        let prefix = scratch.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { events, containerd, daemon, snapshotter: setup.snapshotter, prefix, dir })
    }

    /// Pulls an image and returns when containerd says that it is there.
    pub(crate) fn pull(&self, reference: &str) -> Result<()> {
        self.containerd
            .ctr(&["images", "pull", "--plain-http", "--snapshotter", self.snapshotter, reference])
            .with_context(|| format!("pull with {}", self.snapshotter))?;
        Ok(())
    }

    /// Runs `command` in a new container of an image that was pulled; the image's own command if there is none.
    pub(crate) fn run(&self, reference: &str, id: &str, command: &[&str]) -> Result<Running<'_>> {
        let id = format!("{}-{id}", self.prefix);
        Running::start(&self.containerd, &self.events, self.snapshotter, reference, &id, command)
    }

    /// Mounts an image that was pulled as a container would have it, and gives the directory.
    pub(crate) fn mount(&self, reference: &str) -> Result<PathBuf> {
        let tree = self.dir.path().join("tree");
        fs::create_dir(&tree)?;
        let target = tree.to_str().context("a directory in UTF-8")?;
        self.containerd
            .ctr(&["images", "mount", "--rw", "--snapshotter", self.snapshotter, reference, target])
            .with_context(|| format!("mount with {}", self.snapshotter))?;
        Ok(tree)
    }

    /// Ends everything, and copies the profiles that Starling recorded to the new directory `target`.
    pub(crate) fn end_and_keep_profiles(mut self, target: &Path) -> Result<()> {
        self.stop();
        copy_files(&self.dir.path().join("snapshotter").join(PROFILES), target)
    }

    /// containerd's process.
    pub(crate) fn containerd_pid(&self) -> Pid {
        self.containerd.pid()
    }

    /// The snapshotter's process, if it has one of its own.
    pub(crate) fn daemon_pid(&self) -> Option<Pid> {
        match &self.daemon {
            Daemon::Containerd => None,
            Daemon::Starling(daemon) => Some(daemon.pid()),
            Daemon::Stargz(rival) => Some(rival.pid()),
        }
    }

    /// What Starling says about its fetches and about the reads that waited for them; nothing of the others.
    pub(crate) fn add_own_account(&self, figures: &mut Figures) -> Result<()> {
        match &self.daemon {
            Daemon::Starling(daemon) => starling_metrics::add(daemon, figures),
            _ => Ok(()),
        }
    }

    /// What Starling says of its own memory and layers; nothing of the others.
    pub(crate) fn daemon_state(&self) -> Result<Option<DaemonState>> {
        match &self.daemon {
            Daemon::Starling(daemon) => starling_metrics::state(daemon).map(Some),
            _ => Ok(None),
        }
    }

    /// Disk taken by all that was pulled, after everything that is to be written was written.
    pub(crate) fn add_disk(&self, figures: &mut Figures) {
        nix::unistd::sync();
        figures.insert(Figure::Disk, disk::allocated(self.dir.path()) as f64);
    }

    fn stop(&mut self) {
        self.events.end();
        self.containerd.stop();
        if let Daemon::Starling(daemon) = &mut self.daemon {
            let _ = daemon.end(Signal::SIGTERM);
        }
        // What an ended daemon could not unmount must not keep the directory.
        for mount in mounts_below(self.dir.path()) {
            let _ = umount2(&mount, MntFlags::MNT_DETACH);
        }
    }
}

impl Daemon {
    fn plugin(&self, name: &str) -> Option<Plugin> {
        match self {
            Self::Containerd => None,
            Self::Starling(daemon) => Some(daemon.plugin(name)),
            Self::Stargz(rival) => Some(rival.plugin(name)),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Copies the files in `source` to the new directory `target`.
fn copy_files(source: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    for file in fs::read_dir(source).with_context(|| format!("list {}", source.display()))? {
        let file = file?;
        fs::copy(file.path(), target.join(file.file_name()))?;
    }
    Ok(())
}

/// Puts what is dirty on disk and forgets every clean page: what comes next is read from the disk.
pub(crate) fn drop_page_cache() -> Result<()> {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop the page cache")
}
