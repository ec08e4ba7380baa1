//! Docker Engine with the containerd image store, on top of the same containerd.

use std::fs;

use testkit::{peers::dockerd::Dockerd, skip_unless};

use super::node::{ESTARGZ, Node, missing};

fn start(node: &Node) -> Dockerd {
    Dockerd::start(&node.scratch.path().join("docker"), &node.containerd, &node.plugin).unwrap()
}

#[test]
fn docker_pulls_runs_and_removes_lazily() {
    skip_unless!(missing());
    let node = Node::start("starling");
    let docker = start(&node);
    let info = docker.docker(&["info", "--format", "{{.Driver}} {{.DriverStatus}}"]).unwrap();
    assert_eq!(info.trim(), "starling [[driver-type io.containerd.snapshotter.v1]]");
    let image = node.image(ESTARGZ);
    docker.docker(&["pull", "--quiet", &image]).unwrap();
    assert_eq!(node.prepared(true), node.layers(ESTARGZ).len(), "{}", node.daemon.log());
    let output = docker.docker(&["run", "--rm", "--network", "none", &image]).unwrap();
    assert!(output.contains("ready"));
    let content = node.containerd.ctr(&["--namespace", "moby", "content", "ls", "-q"]).unwrap();
    for (digest, _) in node.layers(ESTARGZ) {
        assert!(!content.contains(&digest), "{digest} was downloaded");
    }
    docker.docker(&["image", "rm", &image]).unwrap();
    for _ in 0..100 {
        if node.names_in("layers").is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(node.names_in("layers"), Vec::<String>::new());
    assert_eq!(node.names_in("snapshotter/snapshots"), Vec::<String>::new());
}

#[test]
fn docker_builds_on_a_lazy_image_without_fetching_it() {
    skip_unless!(missing());
    // BuildKit is lazy only with a snapshotter of this name.
    let node = Node::start("stargz");
    let docker = start(&node);
    node.registry.clear_requests();
    build(&node, &docker);
    let fetched = node.registry.bytes_sent();
    let whole = node.layer_bytes(ESTARGZ);
    // The content store must not have the base image's layers: what was fetched is what the steps read, and what the
    // daemon fetches in the background is not BuildKit's doing.
    let content = node.containerd.ctr(&["--namespace", "moby", "content", "ls", "-q"]).unwrap();
    for (digest, _) in node.layers(ESTARGZ) {
        assert!(!content.contains(&digest), "{digest} was downloaded ({fetched} of {whole} bytes)");
    }
    let output = docker.docker(&["run", "--rm", "--network", "none", "built", "cat", "/made"]).unwrap();
    assert_eq!(output, "made by a step\nand another\n");
}

/// Builds the image `built`: two steps on top of the lazy image.
fn build(node: &Node, docker: &Dockerd) {
    let context = node.scratch.path().join("context");
    fs::create_dir(&context).unwrap();
    let dockerfile = format!(
        "FROM {}\nRUN echo made by a step > /made\nRUN echo and another >> /made\n",
        node.image(ESTARGZ)
    );
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    docker.docker(&["build", "--network", "none", "--tag", "built", context.to_str().unwrap()]).unwrap();
}
