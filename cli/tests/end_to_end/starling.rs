//! `starling pull` and `starling mount` with the sample image.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testkit::skip_unless;

use super::node::{ESTARGZ, Node, missing, program};

#[test]
fn starling_pulls_lazily_and_the_image_runs() {
    skip_unless!(missing());
    let node = Node::start("starling");
    let output = Command::new(program("starling"))
        .args(["pull", "--require-lazy", "--plain-http"])
        .arg("--address")
        .arg(node.containerd.address())
        .arg("--admin")
        .arg(node.daemon.admin())
        .arg(node.image(ESTARGZ))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(node.ctr_run(ESTARGZ, "pulled").contains("ready"));
    let content = node.containerd.content().unwrap();
    for (digest, _) in node.layers(ESTARGZ) {
        assert!(!content.contains(&digest), "{digest} was downloaded into the content store");
    }
}

#[test]
fn a_program_runs_in_a_mounted_image() {
    skip_unless!(missing());
    let node = Node::start("starling");
    let target = node.scratch.path().join("mounted");
    fs::create_dir(&target).unwrap();
    let mut mounting = Command::new(program("starling"))
        .args(["mount", "--quiet", &node.image(ESTARGZ)])
        .arg(&target)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(mounting.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("layers lazy"), "{said}");
    let python = ["/usr/bin/python3", "-c", "import json, email, decimal; print(json.dumps('here'))"];
    let output = Command::new("chroot").arg(&target).args(python).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\"here\"\n");
    kill(Pid::from_raw(mounting.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(mounting.wait().unwrap().success());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}
