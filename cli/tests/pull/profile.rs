//! `starling profile` against a daemon that runs.

use std::{fs, process::Command, time::Duration};

use serde_json::Value;
use testkit::skip_unless;

use super::node::{Node, missing, said};

fn profile(node: &Node, arguments: &[&str]) -> std::process::Output {
    let admin = node.daemon.admin();
    let (command, rest) = arguments.split_first().unwrap();
    let mut all = vec!["profile", command];
    if *command != "pull" {
        all.extend(["--admin", admin.to_str().unwrap()]);
    }
    all.extend(rest);
    Command::new(env!("CARGO_BIN_EXE_starling")).args(all).output().unwrap()
}

fn json(node: &Node, arguments: &[&str]) -> Value {
    let output = profile(node, arguments);
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// Reads the file of a layer, as its container does.
fn read(node: &Node, name: &str) {
    let shown = node.daemon.root().join("snapshotter/l");
    for _ in 0..100 {
        let slots = fs::read_dir(&shown).unwrap().flatten().map(|slot| slot.path().join(name));
        if slots.into_iter().any(|path| fs::read(path).is_ok()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no layer has {name}");
}

#[test]
fn what_a_running_daemon_recorded_is_shown_exported_and_pushed() {
    skip_unless!(missing());
    let node = Node::start();
    let (image, host) = (node.image("lazy"), node.registry.host());
    node.pulled(&[&image]);
    assert!(said(&profile(&node, &["push", &image, "--insecure", &host])).contains("nothing was recorded"));
    for name in ["file-1", "file-0"] {
        read(&node, name);
        std::thread::sleep(Duration::from_millis(20));
    }
    let shown = json(&node, &["show", &image, "--json"]);
    let paths: Vec<_> =
        shown["accesses"].as_array().unwrap().iter().map(|access| access["path"].clone()).collect();
    assert_eq!(paths, ["file-1", "file-0"]);
    let lines = said(&profile(&node, &["show", &image]));
    assert!(lines.contains("2 files in 2 layers") && lines.contains("file-1"), "{lines}");
    let file = node.scratch.path().join("exported.json");
    json(&node, &["export", &image, "-o", file.to_str().unwrap()]);
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&file).unwrap()).unwrap(), shown);

    json(&node, &["push", &image, "--insecure", &host, "--json"]);
    let pulled = json(&node, &["pull", &image, "--insecure", &host]);
    assert_eq!(pulled, shown);
    let unknown = format!("{host}/unknown:1");
    assert!(said(&profile(&node, &["show", &unknown])).contains("no pull of"));
}
