//! The daemon comes and goes, by force or in order, and whoever reads notices nothing but a pause.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use testkit::{
    registry::{Fault, On, RegistryOptions, TestRegistry},
    requires,
    scratch::mounts_below,
    skip_unless,
};

use crate::{
    client::Client,
    image::{Image, Layer},
    node::{Node, ON_DEMAND, PROGRAM},
    pulse::Pulse,
    readers::{self, Readers},
};

/// Small fetches, so that there is always something missing.
const SMALL: &str = "noprefetch = true\nno_background_fetch = true\n\
    [store]\nmin_window = \"64KiB\"\nmax_window = \"128KiB\"\n";

fn registry() -> TestRegistry {
    TestRegistry::start(RegistryOptions::default()).unwrap()
}

/// Kills of a test run; set in the environment to measure with more.
fn kills() -> u32 {
    std::env::var("STARLING_KILLS").map_or(20, |text| text.parse().unwrap())
}

/// A held daemon with an image of one small layer, and a container's root of it.
async fn held(registry: &TestRegistry) -> (Node, Image, PathBuf) {
    let layer = Layer::new(registry, 7, 4, 300_000);
    let image = Image::push(registry, "held", vec![layer]);
    let mut node = Node::start_held(Path::new(PROGRAM), ON_DEMAND).await;
    let names = node.pull(&image).await;
    let root = node.mount("container", &names[0]).await;
    (node, image, root)
}

/// Waits until another process than `before` is the daemon and answers.
async fn successor(node: &Node, before: u32) -> u32 {
    let began = Instant::now();
    loop {
        if let Ok(status) = snapshotter::admin::ask_status(&node.daemon.admin())
            && status.pid != before
        {
            return status.pid;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no successor: {}", node.daemon.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_notice_nothing_of_kills_but_a_pause() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let layers = vec![
        Layer::new(&registry, 1, 8, 500_000),
        Layer::new(&registry, 2, 1500, 2000),
        Layer::new(&registry, 3, 1, 32 << 20),
    ];
    let named = |layer: Layer, name: &str| readers::renamed(&registry, layer, name);
    let layers: Vec<_> = layers.into_iter().zip(["few", "many", "large"]).map(|(l, n)| named(l, n)).collect();
    let image = Image::push(&registry, "read", layers);
    let installed = Installed::new();
    let mut node = Node::start_held(&installed.program, SMALL).await;
    let names = node.pull(&image).await;
    let root = node.mount("container", names.last().unwrap()).await;
    let readers = Readers::start(&root, &image.layers);
    let pulse = Pulse::start(&root.join("few/file-0"));

    let mut random = StdRng::seed_from_u64(0x5eed);
    let mut killed = Vec::new();
    for _ in 0..kills() {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
        // The one that was killed last may have no successor yet.
        let began = Instant::now();
        loop {
            killed.push(Instant::now());
            if node.daemon.kill().is_ok() {
                break;
            }
            killed.pop();
            assert!(began.elapsed() < Duration::from_secs(20), "no daemon: {}", node.daemon.log());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let before = successor(&node, 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let upgraded = Instant::now();
    let pid = installed.upgrade(&node, before).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let done = readers.stop();
    let beats = pulse.stop();
    let upgrade = beats.pauses(&[upgraded]).longest();
    let kills = killed.len();
    killed.push(upgraded);
    let pauses = beats.pauses(&killed);
    println!("{kills} kills and an upgrade, {done:?}, {pauses}; upgrade {upgrade:.1?}");
    assert!(done.iter().all(|(_, count)| *count > 20), "{done:?}");
    assert!(pauses.longest() < Duration::from_secs(10), "{pauses}");
    let log = node.daemon.log();
    assert!(!log.contains("read of a layer failed"), "{log}");
    assert_eq!(mounts_below(&node.daemon.root()).len(), MOUNTS.len(), "no mounts but the first");
    assert_eq!(node.daemon.pid(), pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_for_the_registry_is_answered_by_the_successors_successor() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let (node, image, root) = held(&registry).await;
    registry.clear_requests();
    registry.inject(On::Blob, Fault::Stall, None);
    let reader = std::thread::spawn(move || fs::read(root.join("usr/file-2")).unwrap());
    for asked in 1..3 {
        let began = Instant::now();
        // The successor asks for itself what its predecessor had asked for.
        while registry.requests().len() < asked {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "nothing was asked for: {}",
                node.daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let before = node.daemon.pid();
        node.daemon.kill().unwrap();
        successor(&node, before).await;
        assert!(!reader.is_finished());
    }
    registry.clear_faults();
    assert!(reader.join().unwrap() == image.layers[0].files["usr/file-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_wait_for_the_registry_are_not_failed_by_an_orderly_end() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let (node, image, root) = held(&registry).await;
    registry.inject(On::Blob, Fault::Stall, None);
    let files = image.layers[0].files.clone();
    let readers: Vec<_> = files
        .iter()
        .map(|(path, truth)| (root.join(path), truth.clone()))
        .map(|(path, truth)| std::thread::spawn(move || assert!(fs::read(path).unwrap() == truth)))
        .collect();
    for _ in 0..10 {
        registry.clear_requests();
        node.eventually("the registry is asked", |_| !registry.requests().is_empty()).await;
        let before = node.daemon.pid();
        kill(Pid::from_raw(before.cast_signed()), Signal::SIGTERM).unwrap();
        successor(&node, before).await;
    }
    registry.clear_faults();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_leaves_what_is_in_use_to_the_successor() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let (mut node, image, root) = held(&registry).await;
    let open = fs::File::open(root.join("usr/file-1")).unwrap();
    let before = node.daemon.pid();
    kill(Pid::from_raw(before.cast_signed()), Signal::SIGTERM).unwrap();
    successor(&node, before).await;
    let mut bytes = vec![0; 300_000];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == image.layers[0].files["usr/file-1"]);

    // The end of the holder is the end: what is not in the kernel's memory is an error, and at once.
    assert!(node.daemon.end(Signal::SIGTERM).unwrap().success());
    let asked = Instant::now();
    let error = fs::read(root.join("usr/file-3")).unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTCONN), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_without_users_leaves_nothing_mounted_and_nothing_kept() {
    skip_unless!(requires::fuse());
    let node = Node::start_held(Path::new(PROGRAM), "").await;
    let began = Instant::now();
    loop {
        let before = node.daemon.pid();
        kill(Pid::from_raw(before.cast_signed()), Signal::SIGTERM).unwrap();
        successor(&node, before).await;
        assert_eq!(mounts_below(&node.daemon.root()).len(), MOUNTS.len());
        // A mount namespace that was made meanwhile has copies of the mounts, whose connections are given up by the daemon
        // after the next.
        if devices(node.daemon.holder()) == MOUNTS.len() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "the holder keeps what nobody needs");
    }
    assert!(!node.daemon.log().contains("the predecessor's layers stay mounted"));
}

/// The daemon's FUSE mounts: with extended attributes and without.
const MOUNTS: [&str; 2] = ["l", "p"];

/// FUSE connections that a process keeps.
fn devices(pid: u32) -> usize {
    let devices = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    devices.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == Path::new("/dev/fuse"))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_somebody_took_away_is_served_for_those_who_use_it() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let (mut node, image, root) = held(&registry).await;
    let truth = &image.layers[0].files;
    let mounts = MOUNTS.map(|name| node.daemon.root().join("snapshotter").join(name));
    for mount in &mounts {
        nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    for file in ["usr/file-0", "usr/file-1"] {
        let before = node.daemon.pid();
        node.daemon.kill().unwrap();
        successor(&node, before).await;
        assert!(fs::read(root.join(file)).unwrap() == truth[file]);
    }
    assert_eq!(mounts.map(|mount| mounts_below(&mount).len()), [1, 1]);
    // Of the old ones only that which the container uses lives on. A mount namespace that was made meanwhile has copies of the other,
    // which is given up by the daemon after the next.
    let began = Instant::now();
    while devices(node.daemon.holder()) != MOUNTS.len() + 1 {
        assert!(began.elapsed() < Duration::from_secs(30), "the holder keeps what nobody needs");
        let before = node.daemon.pid();
        node.daemon.kill().unwrap();
        successor(&node, before).await;
    }
    *node = Client::connect(&node.daemon.address()).await.unwrap();
    let infos = node.list("").await;
    let name = &infos.iter().find(|info| info.name != "container").unwrap().name;
    let new = node.mount("new", name).await;
    assert!(fs::read(new.join("usr/file-2")).unwrap() == truth["usr/file-2"]);
    assert!(fs::read(root.join("usr/file-3")).unwrap() == truth["usr/file-3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_in_its_place_goes_on_serving() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let layer = Layer::new(&registry, 9, 3, 200_000);
    let image = Image::push(&registry, "upgrade", vec![layer]);
    let installed = Installed::new();
    let mut node = Node::start_held(&installed.program, ON_DEMAND).await;
    let names = node.pull(&image).await;
    let root = node.mount("container", &names[0]).await;
    let open = fs::File::open(root.join("usr/file-1")).unwrap();

    let before = node.daemon.pid();
    let after = installed.upgrade(&node, before).await;
    assert_eq!(Path::new(&running(after)), installed.program);
    let mut bytes = vec![0; 200_000];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == image.layers[0].files["usr/file-1"]);
    assert!(fs::read(root.join("usr/file-2")).unwrap() == image.layers[0].files["usr/file-2"]);
}

/// A copy of the program that can be replaced.
struct Installed {
    program: PathBuf,
    dir: tempfile::TempDir,
}

impl Installed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("starlingd");
        fs::copy(PROGRAM, &program).unwrap();
        Self { program, dir }
    }

    /// Replaces the program, as a package does, and has the holder end the process `before`, which runs the old one.
    async fn upgrade(&self, node: &Node, before: u32) -> u32 {
        let newer = self.dir.path().join("newer");
        fs::copy(PROGRAM, &newer).unwrap();
        fs::rename(&newer, &self.program).unwrap();
        assert!(running(before).ends_with("(deleted)"));
        kill(Pid::from_raw(node.daemon.holder().cast_signed()), Signal::SIGHUP).unwrap();
        successor(node, before).await
    }
}

/// The file that process `pid` runs.
fn running(pid: u32) -> String {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap().into_os_string().into_string().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_another_version_or_a_damaged_one_needs_no_registry() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let (node, image, root) = held(&registry).await;
    let layer = &image.layers[0];
    let open = fs::File::open(root.join("usr/file-0")).unwrap();
    // A read per file brings all bytes; a later daemon finds them recorded.
    assert!(node.read(layer) == layer.files);
    node.eventually("what was fetched is recorded", |node| recorded(node) > 0).await;
    drop(registry);

    let index = layer_directory(&node).join("index");
    let good = fs::read(&index).unwrap();
    let mut other_version = good.clone();
    other_version[8] ^= 0x7f;
    let damaged = vec![0x55; good.len() / 2];
    for (round, bytes) in [other_version, damaged, Vec::new()].into_iter().enumerate() {
        let new = index.with_extension("test");
        fs::write(&new, bytes).unwrap();
        fs::rename(&new, &index).unwrap();
        let before = node.daemon.pid();
        node.daemon.kill().unwrap();
        successor(&node, before).await;
        assert_eq!(fs::read(&index).unwrap(), good);
        readers::evict(&open);
        let mut bytes = vec![0; 300_000];
        open.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == layer.files["usr/file-0"]);
        let rebuilt = node.daemon.log().matches("built the index again from the kept TOC").count();
        assert_eq!(rebuilt, round + 1);
    }
}

fn layer_directory(node: &Node) -> PathBuf {
    let mut entries = fs::read_dir(node.daemon.root().join("layers")).unwrap();
    entries.next().unwrap().unwrap().path()
}

/// Chunks on record: bits in the file after its header.
fn recorded(node: &Node) -> u32 {
    let bytes = fs::read(layer_directory(node).join("chunks")).unwrap();
    bytes.iter().skip(24).map(|byte| byte.count_ones()).sum()
}
