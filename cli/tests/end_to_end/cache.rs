//! `starling cache` against a daemon with layers of a real image.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use snapshotter::admin::ask_status;
use testkit::skip_unless;

use super::node::{ESTARGZ, Node, missing, program};

/// What `starling cache` prints as JSON.
fn cache(node: &Node, arguments: &[&str]) -> Value {
    let mut command = Command::new(program("starling"));
    command.arg("cache").args(arguments).arg("--json").arg("--admin").arg(node.daemon.admin());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn eventually(what: &str, node: &Node, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {}", node.daemon.log());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn layers_are_listed_a_flipped_bit_is_found_and_unused_layers_are_pruned() {
    skip_unless!(missing());
    let node = Node::start_with("starling", "[cache]\nkeep_unused = true\n");
    node.ctr_pull(ESTARGZ);
    let count = node.layers(ESTARGZ).len();
    let listed = cache(&node, &["ls"]);
    let layers = listed.as_array().unwrap();
    assert!(layers.len() == count && layers.iter().all(|layer| layer["in_use"] == true), "{listed}");

    let largest = layers.iter().max_by_key(|layer| layer["bytes"].as_u64()).unwrap();
    let key = largest["key"].as_str().unwrap();
    eventually("the background completes the layers", &node, || {
        let status = ask_status(&node.daemon.admin()).unwrap();
        status.layers.iter().all(|layer| layer.background == "complete")
    });
    let content = node.daemon.root().join("layers").join(key).join("content");
    let content = File::options().read(true).write(true).open(content).unwrap();
    // What was not written yet would be taken from memory.
    content.sync_all().unwrap();
    let (at, mut byte) = (1000, [0]);
    content.read_exact_at(&mut byte, at).unwrap();
    content.write_all_at(&[byte[0] ^ 8], at).unwrap();
    content.sync_all().unwrap();
    let found = cache(&node, &["verify", key]);
    assert_eq!(found[0]["damaged"].as_array().unwrap().len(), 1, "{found}");
    eventually("it is fetched again", &node, || {
        cache(&node, &["verify", key])[0]["chunks"] == found[0]["chunks"]
    });
    let all = cache(&node, &["verify"]);
    assert_eq!(all.as_array().unwrap().len(), count);
    assert!(
        all.as_array().unwrap().iter().all(|layer| layer["damaged"] == Value::Array(Vec::new())),
        "{all}"
    );
    assert!(node.ctr_run(ESTARGZ, "mended").contains("ready"));

    assert_eq!(cache(&node, &["prune"])["layers"], Value::Array(Vec::new()), "all are in use");
    node.containerd.ctr(&["images", "rm", "--sync", &node.image(ESTARGZ)]).unwrap();
    eventually("nothing refers to the layers", &node, || {
        cache(&node, &["ls"]).as_array().unwrap().iter().all(|layer| layer["in_use"] == false)
    });
    assert_eq!(cache(&node, &["prune"])["layers"].as_array().unwrap().len(), count);
    assert_eq!(cache(&node, &["ls"]), Value::Array(Vec::new()));
}
