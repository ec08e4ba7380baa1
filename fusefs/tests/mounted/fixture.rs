//! A mounted connection in a directory of its own, and overlays on top of it; all gone when dropped.

use std::{
    fs::{File, Permissions},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use fusefs::{Chain, Connection, LayerTree, MountOptions, Slot};
use nix::{
    fcntl::OFlag,
    mount::{MntFlags, MsFlags},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) struct Fixture {
    pub(crate) connection: Connection,
    overlays: Vec<PathBuf>,
    pub(crate) runtime: Runtime,
    pub(crate) dir: TempDir,
}

/// Why mounts cannot be tested here.
pub(crate) fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("mounting needs root");
    }
    let fuse = File::options().read(true).write(true).open("/dev/fuse");
    fuse.is_err().then_some("there is no /dev/fuse")
}

/// A connection without layers, or None after saying why there cannot be one.
pub(crate) fn connect() -> Option<Fixture> {
    connect_with(MountOptions::default())
}

pub(crate) fn connect_with(options: MountOptions) -> Option<Fixture> {
    if let Some(why) = missing() {
        println!("skipped: {why}");
        return None;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = TempDir::with_prefix("starling-fusefs-").unwrap();
    let connection =
        Connection::mount(&dir.path().join("snapshotter/l"), options, runtime.handle().clone()).unwrap();
    Some(Fixture { connection, overlays: Vec::new(), runtime, dir })
}

/// A connection with one layer, and that layer's directory.
pub(crate) fn mounted(layer: impl LayerTree) -> Option<(Fixture, PathBuf)> {
    let fixture = connect()?;
    let path = fixture.attach(1, layer);
    Some((fixture, path))
}

/// A way to the layer that does not lead through the root, as an overlay has it: the root is asked again at every step
/// through it.
pub(crate) fn inside(layer: &Path) -> (OwnedFd, PathBuf) {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let held = nix::fcntl::open(layer, flags, nix::sys::stat::Mode::empty()).unwrap();
    let path = format!("/proc/self/fd/{}", held.as_raw_fd()).into();
    (held, path)
}

pub(crate) fn slot(number: u32) -> Slot {
    Slot::new(number).unwrap()
}

impl Fixture {
    pub(crate) fn attach(&self, number: u32, layer: impl LayerTree) -> PathBuf {
        self.connection.attach(slot(number), Arc::new(layer)).unwrap();
        self.connection.layer_path(slot(number))
    }

    /// Shows layers, the uppermost first, one by one from slot `number` + 1 on, and as a chain in slot `number`.
    pub(crate) fn attach_chain(&self, number: u32, layers: Vec<impl LayerTree>) -> (PathBuf, Vec<PathBuf>) {
        let layers: Vec<_> = (number + 1..).map(slot).zip(layers.into_iter().map(Arc::new)).collect();
        for (slot, layer) in &layers {
            self.connection.attach(*slot, Arc::clone(layer)).unwrap();
        }
        let paths = layers.iter().map(|(slot, _)| self.connection.layer_path(*slot)).collect();
        let chain = Arc::new(Chain::new(layers).unwrap());
        self.connection.attach_chain(slot(number), chain).unwrap();
        (self.connection.layer_path(slot(number)), paths)
    }

    /// Mounts an overlay of these lower directories, topmost first; with a writable top if asked for.
    pub(crate) fn overlay(&mut self, lower: &[&Path], writable: bool) -> PathBuf {
        // Other users must get to it; the connection's directory stays closed.
        std::fs::set_permissions(self.dir.path(), Permissions::from_mode(0o755)).unwrap();
        let base = self.dir.path().join(format!("overlay{}", self.overlays.len()));
        let [merged, upper, work] = ["merged", "upper", "work"].map(|name| base.join(name));
        for path in [&merged, &upper, &work] {
            std::fs::create_dir_all(path).unwrap();
        }
        let lower: Vec<_> = lower.iter().map(|path| path.to_str().unwrap()).collect();
        let mut data = format!("lowerdir={}", lower.join(":"));
        if writable {
            data += &format!(",upperdir={},workdir={}", upper.display(), work.display());
        }
        nix::mount::mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(data.as_str()))
            .unwrap_or_else(|error| panic!("overlay {data}: {error}"));
        self.overlays.push(merged.clone());
        merged
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for overlay in &self.overlays {
            let _ = nix::mount::umount2(overlay, MntFlags::MNT_DETACH);
        }
        let _ = self.connection.unmount_lazily();
    }
}
