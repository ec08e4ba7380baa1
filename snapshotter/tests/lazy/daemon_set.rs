//! A pod is killed as a whole: every process of its cgroup and of its mount namespace, while readers on the node go on.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testkit::{
    registry::{RegistryOptions, TestRegistry},
    requires,
    scratch::Scratch,
    skip_unless,
};

use crate::{
    client::Client,
    image::{Image, Layer},
    node::{ON_DEMAND, PROGRAM, holder},
    readers::{self, Readers},
};

/// A cgroup of the first hierarchy in which one can be made; removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Option<Self> {
        let name = format!("starling-test-{}", std::process::id());
        let roots = ["freezer", "pids", "unified", ""].map(|name| Path::new("/sys/fs/cgroup").join(name));
        let mut roots = roots.iter().filter(|root| root.join("cgroup.procs").exists());
        roots.find_map(|root| {
            let path = root.join(&name);
            fs::create_dir(&path).is_ok().then_some(Self(path))
        })
    }

    fn processes(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that were just killed may still be in it.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("left behind: {}", self.0.display());
    }
}

/// What the kubelet would start; killed when dropped.
struct Pod {
    process: Child,
    cgroup: Cgroup,
    namespace: PathBuf,
}

impl Pod {
    /// `dir` is what the node and the pod share.
    fn start(cgroup: Cgroup, dir: &Path) -> Self {
        let (holder, keeper) = (holder(), dir.join("run/keeper.sock"));
        let (holder, keeper, dir) = (holder.display(), keeper.display(), dir.display());
        // `hostPID`: the process of the test is what process 1 is on a node.
        let script = format!(
            "echo 0 > {cgroup}/cgroup.procs && {holder} --keep --outside /proc/{node} --socket {keeper} && \
             exec {holder} --keeper {keeper} --socket {dir}/run/holder.sock -- {PROGRAM} \
             --root {dir}/root --address {dir}/run/starling.sock --config {dir}/config.toml",
            cgroup = cgroup.0.display(),
            node = std::process::id(),
        );
        let log = fs::File::options().create(true).append(true).open(format!("{dir}/log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--ipc", "--uts", "--propagation", "unchanged", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let process = command.spawn().unwrap();
        // The number of the namespace is known when the daemon runs.
        Self { process, cgroup, namespace: PathBuf::new() }
    }

    fn running(mut self) -> Self {
        self.namespace = fs::read_link(format!("/proc/{}/ns/mnt", self.process.id())).unwrap();
        assert_ne!(self.namespace, fs::read_link("/proc/self/ns/mnt").unwrap());
        assert!(self.processes().len() >= 2, "the holder and the daemon: {:?}", self.processes());
        self
    }

    /// Everything in its cgroup or its mount namespace.
    fn processes(&self) -> Vec<i32> {
        let in_namespace = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            (fs::read_link(entry.path().join("ns/mnt")).ok()? == self.namespace).then_some(pid)
        });
        let mut all: Vec<_> = in_namespace.chain(self.cgroup.processes()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Ends it as the kubelet does for a new version; what is left of it is killed.
    fn replace(mut self) {
        kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(self.process.wait().unwrap().success());
        self.kill();
    }

    /// Kills until nothing is left, and gives the cgroup back to the kernel.
    fn kill(mut self) {
        while !self.processes().is_empty() {
            for pid in self.processes() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = self.process.try_wait();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.process.wait().unwrap();
    }
}

/// The directory that node and pod share, as a mount with `Bidirectional` propagation, and the keeper's end with it.
struct Shared(Scratch);

impl Shared {
    fn new() -> Self {
        let scratch = Scratch::new("starling-pod-").unwrap();
        let path = scratch.path();
        mount(Some(path), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        mount(None::<&str>, path, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        fs::create_dir(path.join("run")).unwrap();
        Self(scratch)
    }

    /// The process that keeps.
    fn keeper(&self) -> Option<i32> {
        let socket = self.0.path().join("run/keeper.sock").display().to_string();
        fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let mut words = line.split(|byte| *byte == 0);
            let keeps = words.clone().any(|word| word == b"--keep");
            (keeps && words.any(|word| word == socket.as_bytes())).then_some(pid)
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.0.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(pid) = self.keeper() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_can_be_killed_while_readers_go_on() {
    skip_unless!(requires::fuse());
    let Some(cgroup) = Cgroup::new() else { return println!("skipped: no cgroup can be made here") };
    let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
    let layers = [("few", 4, 300_000), ("many", 300, 2000), ("large", 1, 8 << 20)];
    let layers: Vec<_> = (1..)
        .zip(layers)
        .map(|(seed, (name, files, len))| {
            readers::renamed(&registry, Layer::new(&registry, seed, files, len), name)
        })
        .collect();
    let image = Image::push(&registry, "pod", layers);
    let shared = Shared::new();
    let dir = shared.0.path().to_owned();
    fs::write(dir.join("config.toml"), ON_DEMAND).unwrap();

    let mut pod = Pod::start(cgroup, &dir);
    let mut client = connected(&shared).await;
    pod = pod.running();
    let keeper = shared.keeper().unwrap();
    assert!(!pod.processes().contains(&keeper), "the keeper is outside");
    let names = client.pull(&image).await;
    let target = dir.join("container");
    client.mount("container", names.last().unwrap(), &target).await;
    let readers = Readers::start(&target, &image.layers);
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if round % 3 == 2 {
            pod.replace()
        } else {
            pod.kill()
        }
        assert_eq!(shared.keeper(), Some(keeper));
        tokio::time::sleep(Duration::from_millis(100)).await;
        pod = Pod::start(Cgroup::new().unwrap(), &dir);
        connected(&shared).await;
        pod = pod.running();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let done = readers.stop();
    println!("{done:?}");
    assert!(done.iter().all(|(_, count)| *count > 10), "{done:?}");
    nix::mount::umount2(&target, nix::mount::MntFlags::empty()).unwrap();
    // The other mount, which the container does not use, ends with each daemon that ends in order.
    let resumed = |log: &str| {
        let stay = log.lines().filter(|line| line.contains("the predecessor's layers stay mounted"));
        stay.filter(|line| line.contains("snapshotter/p\"")).count()
    };
    assert_eq!(resumed(&shared.log()), 6, "{}", shared.log());
    pod.kill();
}

/// A client, once the daemon answers.
async fn connected(shared: &Shared) -> Client {
    let began = Instant::now();
    loop {
        if let Ok(client) = Client::connect(&shared.0.path().join("run/starling.sock")).await {
            return client;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no daemon answers: {}", shared.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
