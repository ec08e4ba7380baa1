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
    for (digest, _) in node.layers(ESTARGZ) {
        assert!(!in_content_store(&node, &digest), "{digest} was downloaded");
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
    // BuildKit is lazy only with a snapshotter of this name. Without background fetching every byte is a step's doing.
    let node = Node::start_with("stargz", "no_background_fetch = true\n");
    let docker = start(&node);
    node.registry.clear_requests();
    let built = format!("{}/built:1", node.registry.host());
    build(&node, &docker, &["--output", &format!("type=image,name={built},push=true,store=false")]);
    let (fetched, whole) = (node.registry.bytes_sent(), node.layer_bytes(ESTARGZ));
    assert!(fetched < whole / 2, "{fetched} of {whole} bytes");
    let manifest = node.registry.manifest("built", "1").unwrap();
    let manifest = String::from_utf8_lossy(&manifest).into_owned();
    for (digest, _) in node.layers(ESTARGZ) {
        assert!(!in_content_store(&node, &digest), "{digest} was downloaded");
        assert!(
            manifest.contains(&digest) || manifest.contains("image.index"),
            "the base is in what was pushed"
        );
    }
}

#[test]
fn docker_build_into_the_engine_runs() {
    skip_unless!(missing());
    let node = Node::start("stargz");
    let docker = start(&node);
    build(&node, &docker, &["--tag", "built"]);
    let output = docker.docker(&["run", "--rm", "--network", "none", "built", "cat", "/made"]).unwrap();
    assert_eq!(output, "made by a step\nand another\n");
    // An image that is kept in the engine is kept whole: BuildKit fetches its base when the steps are done.
    for (digest, _) in node.layers(ESTARGZ) {
        assert!(in_content_store(&node, &digest), "{digest} is not there");
    }
}

#[test]
fn push_save_and_commit_of_a_lazy_image() {
    skip_unless!(missing());
    let node = Node::start("starling");
    let docker = start(&node);
    let image = node.image(ESTARGZ);
    docker.docker(&["pull", "--quiet", &image]).unwrap();
    // Push to the registry that has the layers: they are mounted there, nothing is fetched.
    let copy = format!("{}/copy:1", node.registry.host());
    docker.docker(&["tag", &image, &copy]).unwrap();
    docker.docker(&["push", "--quiet", &copy]).unwrap();
    assert!(node.registry.manifest("copy", "1").is_some());
    assert!(node.layers(ESTARGZ).iter().all(|(digest, _)| !in_content_store(&node, digest)));
    // Commit of a container: reads the whole image to compare it, and keeps what changed.
    docker
        .docker(&["run", "--network", "none", "--name", "changed", &image, "sh", "-c", "echo new > /new"])
        .unwrap();
    docker.docker(&["commit", "changed", "committed"]).unwrap();
    let output = docker.docker(&["run", "--rm", "--network", "none", "committed", "cat", "/new"]).unwrap();
    assert_eq!(output, "new\n");
    // Save: the engine leaves out what is not in its content store, without an error.
    let archive = node.scratch.path().join("saved.tar");
    docker.docker(&["save", "--output", archive.to_str().unwrap(), &image]).unwrap();
    assert!(fs::metadata(&archive).unwrap().len() < node.layer_bytes(ESTARGZ) / 2);
}

fn in_content_store(node: &Node, digest: &str) -> bool {
    let content = node.containerd.ctr(&["--namespace", "moby", "content", "ls", "-q"]).unwrap();
    content.contains(digest)
}

/// Builds two steps on top of the lazy image.
fn build(node: &Node, docker: &Dockerd, output: &[&str]) {
    let context = node.scratch.path().join("context");
    fs::create_dir(&context).unwrap();
    let dockerfile = format!(
        "FROM {}\nRUN echo made by a step > /made\nRUN echo and another >> /made\n",
        node.image(ESTARGZ)
    );
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let context = context.to_str().unwrap();
    let arguments = [&["build", "--network", "none", "--provenance=false"], output, &[context]].concat();
    docker.docker(&arguments).unwrap();
}
