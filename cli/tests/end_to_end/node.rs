//! A machine in a scratch directory: registry, `starlingd`, containerd.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use testkit::{
    RegistryOptions, TestRegistry,
    peers::{containerd::Containerd, starlingd::Starlingd},
    requires, sample_image,
    scratch::Scratch,
};

/// Where the image is in the registry.
pub(crate) const REPOSITORY: &str = "python";
/// Its tag with eStargz layers.
pub(crate) const ESTARGZ: &str = "estargz";
/// Its tag with plain gzip layers.
pub(crate) const PLAIN: &str = "plain";

/// Why these tests cannot run here, if so.
pub(crate) fn missing() -> Option<String> {
    requires::fuse().or_else(requires::go).or_else(sample_image::missing)
}

/// A registry with the sample image, a daemon and a containerd that has it as a plugin.
///
/// Fields are dropped in this order: containerd first, which may still have containers, the directory last.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) containerd: Containerd,
    pub(crate) daemon: Starlingd,
    pub(crate) registry: TestRegistry,
    pub(crate) scratch: Scratch,
    pub(crate) plugin: String,
}

// === impl Node ===

impl Node {
    /// Starts everything, with the plugin registered as `plugin`.
    pub(crate) fn start(plugin: &str) -> Self {
        Self::start_with(plugin, "")
    }

    /// The same, with this configuration of the daemon.
    pub(crate) fn start_with(plugin: &str, config: &str) -> Self {
        Self::start_by(plugin, |dir| Starlingd::start(&program("starlingd"), dir, config))
    }

    /// The same, with the daemon under a holder, which starts it again whenever it ends.
    pub(crate) fn start_held(plugin: &str, config: &str) -> Self {
        let holder = program("starling-holder");
        Self::start_by(plugin, |dir| Starlingd::start_held(&holder, &program("starlingd"), dir, config))
    }

    fn start_by(plugin: &str, start: impl FnOnce(&Path) -> anyhow::Result<Starlingd>) -> Self {
        let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
        let plain = sample_image::python().unwrap();
        registry.add_layout(&plain, sample_image::TAG, REPOSITORY, PLAIN).unwrap();
        registry.add_layout(&converted(&plain), ESTARGZ, REPOSITORY, ESTARGZ).unwrap();
        let scratch = Scratch::new("starling-e2e-").unwrap();
        let daemon = start(&scratch.path().join("starling")).unwrap();
        let containerd =
            Containerd::start(&scratch.path().join("containerd"), Some(&daemon.plugin(plugin))).unwrap();
        Self { containerd, daemon, registry, scratch, plugin: plugin.to_owned() }
    }

    /// The image as a client names it.
    pub(crate) fn image(&self, tag: &str) -> String {
        format!("{}/{REPOSITORY}:{tag}", self.registry.host())
    }

    /// Pulls through containerd's transfer service into the plugin.
    pub(crate) fn ctr_pull(&self, tag: &str) {
        let image = self.image(tag);
        self.containerd
            .ctr(&["images", "pull", "--plain-http", "--snapshotter", &self.plugin, &image])
            .unwrap();
    }

    /// Runs the image's command in a new container and gives what it printed.
    pub(crate) fn ctr_run(&self, tag: &str, name: &str) -> String {
        let image = self.image(tag);
        self.containerd.ctr(&["run", "--rm", "--snapshotter", &self.plugin, &image, name]).unwrap()
    }

    /// Digests and sizes of the layers of the image `tag`.
    pub(crate) fn layers(&self, tag: &str) -> Vec<(String, u64)> {
        let manifest = self.registry.manifest(REPOSITORY, tag).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layer = |layer: &Value| Some((layer["digest"].as_str()?.to_owned(), layer["size"].as_u64()?));
        manifest["layers"].as_array().unwrap().iter().map(|l| layer(l).unwrap()).collect()
    }

    /// Compressed bytes of all layers of the image `tag`.
    pub(crate) fn layer_bytes(&self, tag: &str) -> u64 {
        self.layers(tag).iter().map(|(_, size)| size).sum()
    }

    /// How often the daemon logged that it prepared a layer lazily (`true`) or fell back (`false`).
    pub(crate) fn prepared(&self, lazily: bool) -> usize {
        let wanted = lazily.to_string();
        let lines = self.daemon.log();
        let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["remote-snapshot-prepared"].as_str() == Some(&wanted)).count()
    }

    /// Names in a directory below the daemon's root; none when it is not there.
    pub(crate) fn names_in(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.daemon.root().join(dir)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// A program of this workspace, from the directory that holds the running test's profile.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join(name);
    assert!(path.exists(), "{} is missing: build it with cargo build --workspace --bins", path.display());
    path
}

/// The sample image converted to eStargz by `starling convert`, once for all tests of a build.
fn converted(plain: &Path) -> PathBuf {
    let dir = plain.with_file_name("python-estargz");
    let lock = File::create(plain.with_file_name(".python-estargz.lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let newest = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if newest(&dir.join("index.json")) > newest(&program("starling")) {
        return dir;
    }
    let _ = fs::remove_dir_all(&dir);
    let source = format!("oci:{}:{}", plain.display(), sample_image::TAG);
    let target = format!("oci:{}:{ESTARGZ}", dir.display());
    let status = Command::new(program("starling")).args(["convert", &source, &target]).status().unwrap();
    assert!(status.success(), "starling convert: {status}");
    dir
}
