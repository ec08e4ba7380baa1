//! A machine with a registry, a daemon and a containerd, and images of layers that are lazy or not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use testkit::{
    RegistryOptions, TestRegistry,
    oci_layout::{ImageConfig, LayoutBuilder},
    peers::{containerd::Containerd, starlingd::Starlingd},
    requires,
    scratch::Scratch,
};

/// A machine; fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) containerd: Containerd,
    pub(crate) daemon: Starlingd,
    pub(crate) registry: TestRegistry,
    pub(crate) scratch: Scratch,
}

pub(crate) fn missing() -> Option<String> {
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
    pub(crate) fn start() -> Self {
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

    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}:1", self.registry.host())
    }

    pub(crate) fn pull(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_starling"))
            .args(["pull", "--address", self.containerd.address().to_str().unwrap(), "--plain-http"])
            .args(["--admin", self.daemon.admin().to_str().unwrap()])
            .args(arguments)
            .env("DOCKER_CONFIG", self.scratch.path().join("docker"))
            .output()
            .unwrap()
    }

    pub(crate) fn pulled(&self, arguments: &[&str]) -> Value {
        let output = self.pull(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{}\n{}", said(&output), self.daemon.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub(crate) fn digests(pulled: &Value) -> Vec<String> {
    let layers = pulled["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}
