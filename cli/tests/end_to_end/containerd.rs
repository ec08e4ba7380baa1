//! containerd and `ctr`.

use std::{fs, thread, time::Duration};

use nix::sys::signal::Signal;
use testkit::{peers::starlingd::Starlingd, scratch::mounts_below, skip_unless};

use super::node::{ESTARGZ, Node, PLAIN, missing, program};

#[test]
fn an_image_runs_before_its_layers_are_downloaded() {
    skip_unless!(missing());
    let node = Node::start("starling");
    node.registry.clear_requests();
    node.ctr_pull(ESTARGZ);
    let layers = node.layers(ESTARGZ);
    assert_eq!(node.prepared(true), layers.len(), "every layer lazy: {}", node.daemon.log());
    assert_eq!(node.prepared(false), 0);
    assert!(node.ctr_run(ESTARGZ, "first").contains("ready"));
    let content = node.containerd.content().unwrap();
    for (digest, _) in &layers {
        assert!(!content.contains(digest), "{digest} was downloaded into the content store");
        let whole = |request: &testkit::registry::RequestRecord| {
            request.is_blob() && request.path.contains(digest.as_str()) && request.range.is_none()
        };
        assert!(!node.registry.requests().iter().any(whole), "{digest} was fetched whole");
    }
}

#[test]
fn a_plain_image_falls_back_and_runs() {
    skip_unless!(missing());
    let node = Node::start("starling");
    node.ctr_pull(PLAIN);
    assert!(node.prepared(false) > 0, "the fall-back is logged: {}", node.daemon.log());
    assert_eq!(node.prepared(true), 0);
    assert!(node.ctr_run(PLAIN, "plain").contains("ready"));
}

#[test]
fn removing_the_image_leaves_nothing() {
    skip_unless!(missing());
    let node = Node::start("starling");
    node.ctr_pull(ESTARGZ);
    assert!(node.ctr_run(ESTARGZ, "only").contains("ready"));
    assert!(!node.names_in("layers").is_empty());
    node.containerd.ctr(&["images", "rm", "--sync", &node.image(ESTARGZ)]).unwrap();
    // Garbage collection removes the snapshots, then asks for a clean-up, which is where layers go.
    for _ in 0..100 {
        if node.names_in("layers").is_empty() && node.names_in("snapshotter/snapshots").is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(node.names_in("layers"), Vec::<String>::new());
    assert_eq!(node.names_in("snapshotter/snapshots"), Vec::<String>::new());
    assert_eq!(node.names_in("snapshotter/l"), Vec::<String>::new());
    let listed = node.containerd.ctr(&["snapshots", "--snapshotter", "starling", "ls"]).unwrap();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    // What stays mounted are the two connections, which serve no layer now.
    assert_eq!(mounts_below(&node.daemon.root()).len(), 2);
}

#[test]
fn cached_bytes_are_served_after_a_restart_without_the_registry() {
    skip_unless!(missing());
    let Node { containerd, mut daemon, registry, scratch, plugin } = Node::start("starling");
    let image = format!("{}/python:{ESTARGZ}", registry.host());
    let run = |name: &str| containerd.ctr(&["run", "--rm", "--snapshotter", &plugin, &image, name]);
    containerd.ctr(&["images", "pull", "--plain-http", "--snapshotter", &plugin, &image]).unwrap();
    assert!(run("before").unwrap().contains("ready"));
    let before = containerd.ctr(&["snapshots", "--snapshotter", &plugin, "ls"]).unwrap();
    let status = daemon.end(Signal::SIGTERM).unwrap();
    assert!(status.success(), "a clean end: {status}");
    drop(registry);
    let daemon = Starlingd::start(&program("starlingd"), &scratch.path().join("starling"), "").unwrap();
    // containerd dials a plugin that was away again after up to three seconds.
    let listed = || containerd.ctr(&["snapshots", "--snapshotter", &plugin, "ls"]);
    let after = (0..100).find_map(|_| {
        listed().ok().or_else(|| {
            thread::sleep(Duration::from_millis(100));
            None
        })
    });
    assert_eq!(Some(before), after, "{}", daemon.log());
    assert!(run("after").unwrap().contains("ready"), "{}", daemon.log());
    drop(containerd);
}

#[test]
fn a_hundred_and_twenty_layers_mount() {
    skip_unless!(missing());
    let node = Node::start("starling");
    let image = many_layers::push(&node, 120);
    node.containerd.ctr(&["images", "pull", "--plain-http", "--snapshotter", "starling", &image]).unwrap();
    // Two of three are lazy; the unpacker fetches those after the first plain one, but they stay lazy mounts.
    assert!(node.prepared(true) >= 40, "{} of 120 lazy", node.prepared(true));
    assert!(node.prepared(false) >= 20, "{} of 120 fell back", node.prepared(false));
    let target = node.scratch.path().join("mounted");
    fs::create_dir(&target).unwrap();
    let top = node.containerd.ctr(&[
        "images",
        "mount",
        "--snapshotter",
        "starling",
        &image,
        target.to_str().unwrap(),
    ]);
    top.unwrap();
    for layer in 0..120 {
        let text = fs::read_to_string(target.join(format!("layer-{layer}"))).unwrap();
        assert_eq!(text, format!("this is layer {layer}\n"));
    }
    assert_eq!(fs::read_to_string(target.join("last")).unwrap(), "119");
    node.containerd.ctr(&["images", "unmount", "--rm", target.to_str().unwrap()]).unwrap();
}

/// An image of many small layers, every third a plain one.
mod many_layers {
    use std::fs;

    use serde_json::json;
    use testkit::oci_layout::{ImageConfig, LayoutBuilder};

    use super::Node;

    pub(super) fn push(node: &Node, layers: usize) -> String {
        let dir = node.scratch.path().join("many");
        let mut builder = LayoutBuilder::create(&dir).unwrap();
        for layer in 0..layers {
            let tar = tar_of(layer);
            if layer % 3 == 2 {
                let path = node.scratch.path().join("layer.tar");
                fs::write(&path, &tar).unwrap();
                builder.add_gzip_layer(&path).unwrap();
            } else {
                let built = estargz::write::build(&tar, &estargz::write::Options::default()).unwrap();
                let digest = built.toc_digest.to_string();
                let annotations = json!({ "containerd.io/snapshot/stargz/toc.digest": digest });
                builder.add_blob_layer(&built.blob, &built.diff_id.to_string(), &annotations).unwrap();
            }
        }
        builder.finish("many", &ImageConfig::default()).unwrap();
        node.registry.add_layout(&dir, "many", "many", "latest").unwrap();
        format!("{}/many:latest", node.registry.host())
    }

    fn tar_of(layer: usize) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in [
            (format!("layer-{layer}"), format!("this is layer {layer}\n")),
            ("last".into(), layer.to_string()),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }
}
