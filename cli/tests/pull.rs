//! `starling pull` and `starling status` as a user runs them, with a containerd and a daemon.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use testkit::{
    Auth, RegistryOptions, TestRegistry,
    oci_layout::{ImageConfig, LayoutBuilder},
    peers::{containerd::Containerd, starlingd::Starlingd},
    requires,
    scratch::Scratch,
    skip_unless,
};

/// A machine; fields are dropped in this order.
struct Node {
    containerd: Containerd,
    daemon: Starlingd,
    registry: TestRegistry,
    scratch: Scratch,
}

fn missing() -> Option<String> {
    requires::fuse().or_else(requires::go).or_else(|| {
        let path = starlingd();
        (!path.exists()).then(|| format!("{} is not built", path.display()))
    })
}

/// The daemon, from the directory that holds the running test's profile.
fn starlingd() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_starling")).with_file_name("starlingd")
}

fn tar_of(name: &str, text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

// === impl Node ===

impl Node {
    fn start() -> Self {
        let scratch = Scratch::new("starling-pull-").unwrap();
        let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
        let daemon = Starlingd::start(&starlingd(), &scratch.path().join("starling"), "").unwrap();
        let containerd =
            Containerd::start(&scratch.path().join("containerd"), Some(&daemon.plugin("starling"))).unwrap();
        let node = Self { containerd, daemon, registry, scratch };
        node.push("lazy", &[true, true]);
        node.push("mixed", &[true, false, true]);
        node
    }

    /// Pushes an image of layers that are lazy or not.
    fn push(&self, name: &str, layers: &[bool]) {
        let dir = self.scratch.path().join(name);
        let mut builder = LayoutBuilder::create(&dir).unwrap();
        for (number, lazy) in layers.iter().enumerate() {
            let tar = tar_of(&format!("file-{number}"), &format!("{name} {number}"));
            if *lazy {
                let built = estargz::write::build(&tar, &estargz::write::Options::default()).unwrap();
                let toc = built.toc_digest.to_string();
                let annotations = json!({ "containerd.io/snapshot/stargz/toc.digest": toc });
                builder.add_blob_layer(&built.blob, &built.diff_id.to_string(), &annotations).unwrap();
            } else {
                let path = self.scratch.path().join("layer.tar");
                fs::write(&path, &tar).unwrap();
                builder.add_gzip_layer(&path).unwrap();
            }
        }
        builder.finish("1", &ImageConfig::default()).unwrap();
        self.registry.add_layout(&dir, "1", name, "1").unwrap();
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}:1", self.registry.host())
    }

    fn pull(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_starling"))
            .args(["pull", "--address", self.containerd.address().to_str().unwrap(), "--plain-http"])
            .args(["--admin", self.daemon.admin().to_str().unwrap()])
            .args(arguments)
            .env("DOCKER_CONFIG", self.scratch.path().join("docker"))
            .output()
            .unwrap()
    }

    fn pulled(&self, arguments: &[&str]) -> Value {
        let output = self.pull(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{}\n{}", said(&output), self.daemon.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn digests(pulled: &Value) -> Vec<String> {
    let layers = pulled["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_lazy_image_is_pulled_without_its_layers() {
    skip_unless!(missing());
    let node = Node::start();
    let image = node.image("lazy");
    let pulled = node.pulled(&["--require-lazy", &image]);
    assert_eq!(pulled["lazy"], true);
    let content = node.containerd.content().unwrap();
    let digests = digests(&pulled);
    assert_eq!(digests.len(), 2);
    assert!(digests.iter().all(|digest| !content.contains(digest)), "{content:?}");
    // Again: nothing is asked of the daemon, and the layers are lazy all the same.
    assert_eq!(node.pulled(&["--require-lazy", &image])["lazy"], true);
    let complete = node.pulled(&["--content", &image]);
    let content = node.containerd.content().unwrap();
    assert!(digests.iter().all(|digest| content.contains(digest)), "{content:?}");
    assert_eq!(complete["layers"][0]["lazy"], true);
    assert_eq!(complete["layers"][0]["downloaded"], true);
    status_shows_the_layers(&node, &digests, &image);
}

fn status_shows_the_layers(node: &Node, digests: &[String], image: &str) {
    let status = |json: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_starling"))
            .args(["status", "--admin", node.daemon.admin().to_str().unwrap()])
            .args(json)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed: Value = serde_json::from_str(&status(&["--json"])).unwrap();
    let mut blobs: Vec<_> =
        listed["layers"].as_array().unwrap().iter().map(|layer| layer["blob"].as_str().unwrap()).collect();
    let mut wanted: Vec<_> = digests.iter().map(String::as_str).collect();
    blobs.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(blobs, wanted);
    assert!(status(&[]).contains(&format!("{image}: 2 of 2 layers lazy")), "{}", status(&[]));
}

#[test]
fn a_layer_that_is_not_lazy_is_named_with_the_reason() {
    skip_unless!(missing());
    let node = Node::start();
    let image = node.image("mixed");
    let output = node.pull(&["--require-lazy", &image]);
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    for words in ["layer 2", "not lazy", "reason (", "remedy: ", "2 of 3 layers lazy", "1 of 3 layers"] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    let pulled = node.pulled(&[&image]);
    let lazy: Vec<_> =
        pulled["layers"].as_array().unwrap().iter().map(|layer| layer["lazy"].as_bool().unwrap()).collect();
    assert_eq!(lazy, [true, false, true]);
    assert_eq!(pulled["layers"][1]["downloaded"], true);
}

#[test]
fn credentials_of_the_docker_configuration_reach_containerd() {
    skip_unless!(missing());
    let node = Node::start();
    node.registry.set_auth(Auth::Basic { user: "me".into(), password: "secret".into() });
    let image = node.image("lazy");
    assert!(!node.pull(&[&image]).status.success());
    let docker = node.scratch.path().join("docker");
    fs::create_dir_all(&docker).unwrap();
    // me:secret
    let auths = json!({ "auths": { node.registry.host(): { "auth": "bWU6c2VjcmV0" } } });
    fs::write(docker.join("config.json"), auths.to_string()).unwrap();
    let pulled = node.pulled(&[&image]);
    assert_eq!(digests(&pulled).len(), 2);
}

#[test]
fn what_is_missing_in_the_configuration_is_said() {
    skip_unless!(missing());
    let node = Node::start();
    let image = node.image("lazy");
    for (arguments, words) in [
        (["--snapshotter", "other"], "[proxy_plugins.\"other\"]"),
        (["--snapshotter", "native"], "enable_remote_snapshot_annotations = \"true\""),
        // No entry of unpack_config fits.
        (["--platform", "windows/amd64"], "unpack_config"),
        (["--address", "/nowhere"], "cannot reach containerd"),
    ] {
        let output = match arguments {
            ["--address", address] => Command::new(env!("CARGO_BIN_EXE_starling"))
                .args(["pull", "--address", address, &image])
                .output()
                .unwrap(),
            arguments => node.pull(&[&arguments[..], &[&image]].concat()),
        };
        assert!(!output.status.success());
        assert!(said(&output).contains(words), "{words:?} is not in\n{}", said(&output));
    }
    assert!(!node.containerd.ctr(&["images", "ls", "-q"]).unwrap().contains(&image));
}
