//! containerd or the daemon is killed at every step of a pull. When both are there again the image can be pulled, is what
//! it was, and can be removed: nothing is left of either attempt.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use testkit::{
    RegistryOptions, TestRegistry,
    oci_layout::{ImageConfig, LayoutBuilder},
    peers::{
        containerd::{Containerd, Plugin},
        gate::{Gate, When},
        starlingd::Starlingd,
    },
    requires,
    scratch::Scratch,
    skip_unless,
};

use super::node::program;

/// Layers that are lazy, and one that falls back: it is prepared, unpacked and committed.
const LAYERS: usize = 3;
const PLAIN: usize = 1;
/// More calls than a pull of this image makes.
const MOST_CALLS: u32 = 60;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Containerd,
    Daemon,
}

/// Fields are dropped in this order.
struct Machine {
    containerd: Containerd,
    gate: Gate,
    daemon: Starlingd,
    _registry: TestRegistry,
    scratch: Scratch,
    image: String,
}

impl Machine {
    fn start() -> Self {
        let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
        let scratch = Scratch::new("starling-steps-").unwrap();
        let layout = scratch.path().join("image");
        write_image(&layout, scratch.path());
        registry.add_layout(&layout, "steps", "steps", "1").unwrap();
        let (holder, starlingd) = (program("starling-holder"), program("starlingd"));
        let daemon =
            Starlingd::start_held(&holder, &starlingd, &scratch.path().join("starling"), "").unwrap();
        let gate = Gate::open(&scratch.path().join("gate.sock"), &daemon.address()).unwrap();
        let plugin = Plugin { address: gate.address().to_owned(), ..daemon.plugin("starling") };
        let containerd = Containerd::start(&scratch.path().join("containerd"), Some(&plugin)).unwrap();
        let containerd = containerd.with_time_limit(Duration::from_secs(30));
        let image = format!("{}/steps:1", registry.host());
        Self { containerd, gate, daemon, _registry: registry, scratch, image }
    }

    fn pid(&self, victim: Victim) -> Pid {
        let pid = if victim == Victim::Containerd { self.containerd.pid() } else { self.daemon.pid() };
        assert!(pid > 0);
        Pid::from_raw(pid.cast_signed())
    }

    /// A pull in which `victim` is killed; whether it came so far.
    fn pull_interrupted(&mut self, when: When, victim: Victim) -> bool {
        let pid = self.pid(victim);
        self.gate.arm(when, move || kill(pid, Signal::SIGKILL).unwrap());
        // It fails, or finds a daemon again in time.
        let _ = self.containerd.try_ctr(&[
            "images",
            "pull",
            "--plain-http",
            "--snapshotter",
            "starling",
            &self.image,
        ]);
        let (struck, _) = self.gate.disarm();
        if struck && victim == Victim::Containerd {
            self.containerd.kill().unwrap();
            self.containerd.start_again().unwrap();
        }
        struck
    }

    fn ctr(&self, arguments: &[&str]) -> String {
        self.containerd.ctr(arguments).unwrap()
    }

    /// Repeats `ctr` until containerd has its plugin again.
    fn ctr_in_the_end(&self, arguments: &[&str]) -> String {
        let mut done = Err(anyhow::anyhow!("never asked"));
        self.eventually(&arguments.join(" "), || {
            done = self.containerd.ctr(arguments);
            done.is_ok()
        });
        done.unwrap()
    }

    fn eventually(&self, what: &str, mut check: impl FnMut() -> bool) {
        let began = Instant::now();
        while !check() {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}: {}", self.daemon.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything is as if nothing had happened.
    fn look(&self) {
        let pull = ["images", "pull", "--plain-http", "--snapshotter", "starling", &self.image];
        self.ctr_in_the_end(&pull);
        let snapshots = self.ctr(&["snapshots", "--snapshotter", "starling", "ls"]);
        let committed = snapshots.lines().filter(|line| line.contains("Committed")).count();
        assert_eq!(committed, LAYERS, "one name for each layer: {snapshots}");
        let target = self.scratch.path().join("mounted");
        fs::create_dir_all(&target).unwrap();
        let mounted = target.to_str().unwrap();
        self.ctr(&["images", "mount", "--snapshotter", "starling", &self.image, mounted]);
        for layer in 0..LAYERS {
            assert_eq!(fs::read_to_string(target.join(format!("layer-{layer}"))).unwrap(), text(layer));
        }
        self.ctr(&["images", "unmount", "--rm", "--snapshotter", "starling", mounted]);
    }

    /// Removes the image, and what attempts that were cut off keep for a day: their leases.
    fn remove(&self) {
        for lease in self.ctr(&["leases", "ls", "-q"]).lines() {
            self.ctr(&["leases", "delete", lease]);
        }
        self.ctr(&["images", "rm", "--sync", &self.image]);
        let snapshots = || self.ctr(&["snapshots", "--snapshotter", "starling", "ls"]);
        self.eventually("no snapshot is left", || snapshots().lines().count() == 1);
        self.eventually("nothing is left on disk", || {
            ["layers", "snapshotter/snapshots", "snapshotter/l"].iter().all(|dir| {
                let entries = fs::read_dir(self.daemon.root().join(dir));
                entries.map_or(true, |mut entries| entries.next().is_none())
            })
        });
        assert_eq!(self.ctr(&["content", "ls", "-q"]), "");
    }
}

fn text(layer: usize) -> String {
    format!("this is layer {layer}\n")
}

fn write_image(layout: &Path, scratch: &Path) {
    let mut builder = LayoutBuilder::create(layout).unwrap();
    for layer in 0..LAYERS {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text(layer).len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("layer-{layer}"), text(layer).as_bytes()).unwrap();
        let archive = archive.into_inner().unwrap();
        if layer == PLAIN {
            let path = scratch.join("layer.tar");
            fs::write(&path, &archive).unwrap();
            builder.add_gzip_layer(&path).unwrap();
        } else {
            let built = estargz::write::build(&archive, &estargz::write::Options::default()).unwrap();
            let annotations =
                json!({ "containerd.io/snapshot/stargz/toc.digest": built.toc_digest.to_string() });
            builder.add_blob_layer(&built.blob, &built.diff_id.to_string(), &annotations).unwrap();
        }
    }
    builder.finish("steps", &ImageConfig::default()).unwrap();
}

/// Whether all moments of all steps are tried; of each step one otherwise, in turn.
fn thorough() -> bool {
    std::env::var_os("STARLING_EVERY_MOMENT").is_some()
}

fn interrupt_every_step(victim: Victim) {
    let mut machine = Machine::start();
    let (mut strikes, mut steps) = (0, 0);
    for call in 1..MOST_CALLS {
        let moments = [When::Before(call), When::Within(call), When::Answered(call)];
        let mut any = false;
        for (n, when) in moments.into_iter().enumerate() {
            if !thorough() && call as usize % moments.len() != n {
                continue;
            }
            let struck = machine.pull_interrupted(when, victim);
            any |= struck;
            strikes += u32::from(struck);
            machine.look();
            machine.remove();
        }
        if !any {
            break;
        }
        steps = call;
    }
    println!("{victim:?} killed {strikes} times at {steps} steps of a pull");
    assert!(steps >= 5, "a pull has more calls than {steps}");
}

#[test]
fn containerd_killed_at_every_step_of_a_pull_leaves_nothing() {
    skip_unless!(requires::fuse(), requires::go());
    interrupt_every_step(Victim::Containerd);
}

#[test]
fn the_daemon_killed_at_every_step_of_a_pull_leaves_nothing() {
    skip_unless!(requires::fuse(), requires::go());
    interrupt_every_step(Victim::Daemon);
}
