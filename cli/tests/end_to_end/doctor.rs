//! `starling doctor` where containerd and the daemon run: it finds them well, names what is not, and what it says to write
//! is all that is needed.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::skip_unless;

use super::node::{ESTARGZ, Node, missing, program};

/// What it is asked about both of them, a registry included.
const CHECKS: [&str; 11] = [
    "starlingd's file",
    "socket",
    "permissions",
    "starlingd",
    "configuration",
    "proxy plugin",
    "exported root",
    "image labels",
    "unpacking",
    "containerd",
    "registry",
];

/// What it found.
#[derive(Debug)]
struct Found {
    checks: Vec<Value>,
    /// It ended with 0.
    well: bool,
}

// === impl Found ===

impl Found {
    fn on(node: &Node) -> Self {
        let output = doctor(node, &["--json"]);
        let checks = serde_json::from_slice(&output.stdout);
        let checks = checks.unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { checks, well: output.status.success() }
    }

    fn state(&self, name: &str) -> &str {
        let mut named = self.checks.iter().filter(|check| check["name"] == name);
        named.next().and_then(|check| check["state"].as_str()).unwrap_or("missing")
    }

    /// What fails, by name.
    fn failed(&self) -> Vec<&str> {
        self.failures().map(|check| check["name"].as_str().unwrap()).collect()
    }

    fn failures(&self) -> impl Iterator<Item = &Value> {
        self.checks.iter().filter(|check| check["state"] == "failure")
    }
}

/// Runs it with what it must know of a node in a scratch directory.
fn doctor(node: &Node, more: &[&str]) -> Output {
    Command::new(program("starling"))
        .arg("doctor")
        .arg("--config")
        .arg(configuration(node))
        .arg("--containerd")
        .arg(node.containerd.address())
        .arg("--address")
        .arg(node.daemon.address())
        .arg("--root")
        .arg(node.daemon.root())
        .arg("--daemon-config")
        .arg(node.scratch.path().join("starling/config.toml"))
        .args(["--image", &node.image(ESTARGZ)])
        .args(more)
        .output()
        .unwrap()
}

/// containerd's configuration.
fn configuration(node: &Node) -> PathBuf {
    node.scratch.path().join("containerd/config.toml")
}

fn restart_containerd(node: &mut Node) {
    node.containerd.kill().unwrap();
    node.containerd.start_again().unwrap();
}

/// The lines that a check says to write or run.
fn lines(check: &Value) -> Vec<&str> {
    check["remedy"]["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
}

#[test]
fn the_doctor_finds_what_runs_well_and_names_what_does_not() {
    skip_unless!(missing());
    let mut node = Node::start("starling");
    node.ctr_pull(ESTARGZ);
    assert_eq!(node.prepared(true), node.layers(ESTARGZ).len(), "{}", node.daemon.log());
    let found = Found::on(&node);
    for name in CHECKS {
        assert_eq!(found.state(name), "ok", "{name}: {found:#?}");
    }
    assert!(found.well && found.failed().is_empty(), "{found:#?}");

    let text = fs::read_to_string(configuration(&node)).unwrap();
    let label = r#"enable_remote_snapshot_annotations = "true""#;
    fs::write(configuration(&node), text.replace(label, "")).unwrap();
    let found = Found::on(&node);
    assert_eq!((found.failed(), found.well), (vec!["image labels"], false), "{found:#?}");
    assert_eq!(lines(found.failures().next().unwrap()), [label]);
    let said = String::from_utf8(doctor(&node, &[]).stdout).unwrap();
    assert!(said.lines().any(|line| line.trim() == label), "{said}");
    fs::write(configuration(&node), text).unwrap();

    node.daemon.end(Signal::SIGTERM).unwrap();
    let found = Found::on(&node);
    assert_eq!((found.failed(), found.well), (vec!["socket", "starlingd"], false), "{found:#?}");
    assert!(found.failures().all(|check| lines(check) == ["systemctl enable --now starling"]), "{found:#?}");
}

#[test]
fn what_the_doctor_says_makes_a_containerd_without_the_plugin_lazy() {
    skip_unless!(missing());
    let mut node = Node::start("starling");
    let path = configuration(&node);
    let text = fs::read_to_string(&path).unwrap();
    // The snapshotter's entry for unpacking, and with it the proxy plugin, is the end of the file.
    let without = &text[..text.rfind("[[plugins.").unwrap()];
    fs::write(&path, without).unwrap();
    restart_containerd(&mut node);
    let found = Found::on(&node);
    assert_eq!(found.failed(), ["proxy plugin", "unpacking", "containerd"], "{found:#?}");

    let add = format!("add to {}, and restart containerd", path.display());
    let to_add: Vec<_> = found.failures().filter(|check| check["remedy"]["what"] == *add).collect();
    assert_eq!(to_add.len(), 2, "{found:#?}");
    let more = to_add.into_iter().flat_map(lines).collect::<Vec<_>>().join("\n");
    fs::write(&path, format!("{without}\n{more}\n")).unwrap();
    restart_containerd(&mut node);
    let found = Found::on(&node);
    assert!(found.well, "{found:#?}");
    node.ctr_pull(ESTARGZ);
    assert_eq!(node.prepared(true), node.layers(ESTARGZ).len(), "{}", node.daemon.log());
}
