//! A machine: a registry, a daemon of its own process, and containerd's half of a pull.

use std::{
    collections::BTreeMap,
    fs,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use snapshotter::admin::{LayerStatus, OutcomeStatus, Status, ask_metrics, ask_status};
use tempfile::TempDir;
use testkit::{peers::starlingd::Starlingd, scratch::mounts_below};

use super::{
    client::Client,
    image::{Image, Layer},
};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_starlingd");

/// Nothing is fetched but what is asked for.
pub(crate) const ON_DEMAND: &str = "noprefetch = true\nno_background_fetch = true\n";

/// The daemon and its client.
pub(crate) struct Node {
    pub(crate) directory: TempDir,
    pub(crate) daemon: Starlingd,
    pub(crate) client: Client,
    config: String,
    mounted: Vec<PathBuf>,
}

// === impl Node ===

impl Node {
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config).await
    }

    /// The same, with a root of its own on a file system in memory of so many bytes.
    pub(crate) async fn start_on_small_disk(bytes: u64, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root, size) = (directory.path().join("root"), format!("size={bytes}"));
        fs::create_dir(&root).unwrap();
        let tmpfs = Some("tmpfs");
        nix::mount::mount(tmpfs, &root, tmpfs, nix::mount::MsFlags::empty(), Some(size.as_str())).unwrap();
        Self::start_in(directory, config).await
    }

    async fn start_in(directory: TempDir, config: &str) -> Self {
        let daemon = Starlingd::start(Path::new(PROGRAM), directory.path(), config).unwrap();
        let client = Client::connect(&daemon.address()).await.unwrap();
        Self { directory, daemon, client, config: config.to_owned(), mounted: Vec::new() }
    }

    /// The same, with the daemon `program` under a holder, which starts it again whenever it ends.
    pub(crate) async fn start_held(program: &Path, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let daemon = Starlingd::start_held(&holder(), program, directory.path(), config).unwrap();
        let client = Client::connect(&daemon.address()).await.unwrap();
        Self { directory, daemon, client, config: config.to_owned(), mounted: Vec::new() }
    }

    /// Ends the daemon by `signal` and starts another one on the same root.
    pub(crate) async fn restart(&mut self, signal: Signal) {
        self.restart_as(Path::new(PROGRAM), signal).await;
    }

    /// The same with another program. From its start until it answers; returns when it does.
    pub(crate) async fn restart_as(&mut self, program: &Path, signal: Signal) -> Duration {
        let status = self.daemon.end(signal).unwrap();
        assert!(signal == Signal::SIGKILL || status.code() == Some(0), "{status}");
        let began = Instant::now();
        self.daemon = Starlingd::start(program, self.directory.path(), &self.config).unwrap();
        let up = began.elapsed();
        self.client = Client::connect(&self.daemon.address()).await.unwrap();
        up
    }

    /// Mounts a view of `parent` as a container's root; unmounted with the node.
    pub(crate) async fn mount(&mut self, key: &str, parent: &str) -> PathBuf {
        let target = self.directory.path().join(key);
        self.client.mount(key, parent, &target).await;
        self.mounted.push(target.clone());
        target
    }

    /// A copy of the client.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn status(&self) -> Status {
        ask_status(&self.daemon.admin()).unwrap()
    }

    pub(crate) fn metrics(&self) -> String {
        ask_metrics(&self.daemon.admin()).unwrap()
    }

    /// What the daemon says of `layer`.
    pub(crate) fn layer(&self, layer: &Layer) -> Option<LayerStatus> {
        let toc = layer.toc.to_string();
        self.status().layers.into_iter().find(|status| status.toc == toc)
    }

    /// Where `layer` is shown.
    pub(crate) fn path(&self, layer: &Layer) -> PathBuf {
        let slot = self.layer(layer).and_then(|status| status.slot).expect("the layer has a slot");
        self.daemon.root().join("snapshotter/l").join(slot.to_string())
    }

    /// Reads all files of `layer` through the mount.
    pub(crate) fn read(&self, layer: &Layer) -> BTreeMap<String, Vec<u8>> {
        let root = self.path(layer);
        layer.files.keys().map(|path| (path.clone(), fs::read(root.join(path)).unwrap())).collect()
    }

    /// The code and reason for which the image's layer `n` fell back, as the daemon tells them.
    pub(crate) fn reason(&self, image: &Image, n: usize) -> Option<(String, String)> {
        let blob = image.layers[n].blob.to_string();
        let images = self.status().images;
        let known = images.into_iter().find(|status| status.reference == image.reference)?;
        match known.layers.into_iter().find(|layer| layer.blob == blob)?.outcome {
            OutcomeStatus::FellBack { code, reason } => Some((code, reason)),
            OutcomeStatus::Lazy { .. } => None,
        }
    }

    /// What `starling explain` says of the image, if that program is there.
    pub(crate) fn explain(&self, image: &Image) -> Option<String> {
        let program = Path::new(PROGRAM).with_file_name("starling");
        if !program.exists() {
            return None;
        }
        let mut command = Command::new(program);
        command.arg("explain").arg("--admin").arg(self.daemon.admin()).arg(&image.reference);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    }

    /// Waits until `condition` holds.
    pub(crate) async fn eventually(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{what}: {:#?}\n{}",
                self.status(),
                self.daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The holder, which is built with all programs.
pub(crate) fn holder() -> PathBuf {
    let path = Path::new(PROGRAM).with_file_name("starling-holder");
    assert!(path.exists(), "{} is missing: build it with cargo build --workspace --bins", path.display());
    path
}

impl Drop for Node {
    fn drop(&mut self) {
        for target in &self.mounted {
            // A test that failed half-way has less to unmount.
            let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
        }
        // One that ended while it was in use has left its mount.
        let _ = self.daemon.end(Signal::SIGTERM);
        for left in mounts_below(self.directory.path()) {
            let _ = nix::mount::umount2(&left, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

impl Deref for Node {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}
