//! The machine under stress: a registry, a disk, the daemon under its holder, and a containerd.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use testkit::{
    Auth, Redirect, RegistryOptions, TestRegistry,
    peers::{containerd::Containerd, starlingd::Starlingd},
};

use crate::{
    admin::Admin,
    ctr::{Ctr, PLUGIN},
    disk::Disk,
    images::Images,
    judge::READ_TIMEOUT,
};

/// Small fetches, so that there is always something missing.
const CONFIG: &str = "noprefetch = true\nno_background_fetch = true\n\
    [store]\nmin_window = \"64KiB\"\nmax_window = \"256KiB\"\nmemory_budget = \"16MiB\"\n";

/// Everything that runs. Fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) containerd: Mutex<Containerd>,
    pub(crate) daemon: Mutex<Starlingd>,
    pub(crate) registry: TestRegistry,
    pub(crate) disk: Disk,
    pub(crate) ctr: Ctr,
    pub(crate) admin: Admin,
    pub(crate) images: Images,
    /// The daemon's directory, and its root below that.
    pub(crate) directory: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) scratch: PathBuf,
}

// === impl Node ===

impl Node {
    /// Starts everything below `scratch`, with the programs in `programs`.
    pub(crate) fn start(programs: &Path, scratch: &Path) -> Result<Self> {
        let registry = TestRegistry::start(RegistryOptions {
            auth: tokens(),
            // Addresses expire all the time.
            redirect: Redirect::Signed { status: 307, lifetime: Duration::from_secs(2), hops: 0 },
            ..RegistryOptions::default()
        })?;
        let images = Images::push(&registry, &programs.join("starling"), scratch)?;
        let directory = scratch.join("starling");
        let root = directory.join("root");
        let disk = Disk::mount(&scratch.join("disk"), &root)?;
        let program = programs.join("starlingd").canonicalize().context("find starlingd")?;
        let config = CONFIG.to_owned() + &format!("read_timeout_sec = {}\n", READ_TIMEOUT.as_secs());
        let holder = programs.join("starling-holder");
        let daemon = Starlingd::start_held_logging(&holder, &program, &directory, &config, "info")?;
        let containerd = Containerd::start(&scratch.join("containerd"), Some(&daemon.plugin(PLUGIN)))?;
        Ok(Self {
            ctr: Ctr::new(&containerd)?,
            admin: Admin::new(daemon.admin()),
            containerd: Mutex::new(containerd),
            daemon: Mutex::new(daemon),
            registry,
            disk,
            images,
            directory,
            root,
            program,
            scratch: scratch.to_owned(),
        })
    }

    /// A name for a container; it tells whose it is.
    pub(crate) fn container_name(&self, name: &str) -> String {
        format!("{}-{name}", self.scratch.file_name().unwrap_or_default().to_string_lossy())
    }

    /// Pulls the image in `repository`.
    pub(crate) fn pull(&self, repository: &str) -> Result<String> {
        let image = self.images.reference(repository);
        self.ctr.run(&["images", "pull", "--plain-http", "--snapshotter", PLUGIN, &image])
    }

    /// Mounts the image in `repository` for readers.
    pub(crate) fn mount(&self, repository: &str, target: &Path) -> Result<()> {
        std::fs::create_dir_all(target)?;
        let target = target.to_str().context("a path in UTF-8")?;
        let image = self.images.reference(repository);
        self.ctr.run(&["images", "mount", "--snapshotter", PLUGIN, &image, target]).map(drop)
    }

    /// Ends what [`Self::mount`] did.
    pub(crate) fn unmount(&self, target: &Path) -> Result<()> {
        let target = target.to_str().context("a path in UTF-8")?;
        self.ctr.run(&["images", "unmount", "--rm", "--snapshotter", PLUGIN, target]).map(drop)
    }
}

/// Anyone gets a token, which is good for a short while.
pub(crate) fn tokens() -> Auth {
    Auth::Bearer { login: None, lifetime: Duration::from_secs(4), post: false, identity_token: None }
}
