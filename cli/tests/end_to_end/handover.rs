//! Containers of a real containerd go on while their daemon is killed.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use testkit::{sample_image::DEBIAN_SUMS, skip_unless};

use super::node::{ESTARGZ, Node, missing};

const KILLS: u64 = 20;
/// Nothing is fetched before it is read.
const ON_DEMAND: &str = "noprefetch = true\nno_background_fetch = true\n";

/// Behind [`DEBIAN_SUMS`]: reads the files of all Debian packages through maps, makes the kernel forget them, and compares
/// them with the sums that the packages came with; starts programs in between.
const PROGRAM: &str = "\
import hashlib, mmap, os, subprocess
count = 0
while True:
    for path, digest in sums.items():
        with open(path, 'rb') as file:
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as map:
                assert hashlib.md5(map).hexdigest() == digest, path
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        count += 1
        if count % 20 == 0:
            subprocess.run(['/bin/true'], check=True)
            print('read', count, flush=True)
";

/// How many files the container's program says that it has read.
fn progress(log: &Path) -> u64 {
    let text = fs::read_to_string(log).unwrap_or_default();
    assert!(!text.contains("Traceback"), "{text}");
    text.lines().rev().find_map(|line| line.strip_prefix("read ")?.parse().ok()).unwrap_or(0)
}

fn wait_for(what: &str, node: &Node, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {}", node.daemon.log());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_container_outlives_its_daemon() {
    skip_unless!(missing());
    let node = Node::start_held("starling", ON_DEMAND);
    node.ctr_pull(ESTARGZ);
    let log = node.scratch.path().join("container.log");
    let uri = format!("file://{}", log.display());
    let image = node.image(ESTARGZ);
    let run = ["run", "-d", "--log-uri", &uri, "--snapshotter", "starling", &image, "reader"];
    let program = format!("{DEBIAN_SUMS}{PROGRAM}");
    let command = ["/usr/bin/python3", "-c", &program];
    node.containerd.ctr(&[&run[..], &command[..]].concat()).unwrap();
    wait_for("the container reads", &node, || progress(&log) > 0);
    for kill in 0..KILLS {
        wait_for("there is a daemon to kill", &node, || node.daemon.kill().is_ok());
        thread::sleep(Duration::from_millis(60 + 37 * (kill % 7)));
    }
    let read = progress(&log);
    wait_for("the container reads on", &node, || progress(&log) > read + 100);
    let tasks = node.containerd.ctr(&["tasks", "ls"]).unwrap();
    assert!(tasks.lines().any(|line| line.starts_with("reader") && line.contains("RUNNING")), "{tasks}");
    assert!(node.daemon.log().matches("the predecessor's layers stay mounted").count() >= KILLS as usize / 2);

    // containerd dials a plugin that was away again after up to three seconds.
    let listed = || node.containerd.try_ctr(&["snapshots", "--snapshotter", "starling", "ls"]);
    wait_for("containerd has its plugin again", &node, || listed().is_ok_and(|output| output.ok));
    assert!(node.ctr_run(ESTARGZ, "another").contains("ready"));
}
