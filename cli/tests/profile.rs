//! `starling profile` and `convert --profile` as a user runs them, with a registry.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use estargz::Digest;
use serde_json::{Value, json};
use testkit::registry::{RegistryOptions, TestRegistry};

const TYPE: &str = "application/vnd.starling.profile.v1+json";

fn starling(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling")).args(arguments).output().unwrap()
}

fn run(arguments: &[&str]) -> Value {
    let output = starling(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn failure(arguments: &[&str]) -> String {
    let output = starling(arguments);
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// An image of one layer, and a profile of it.
fn image(registry: &TestRegistry) -> (String, Value) {
    let (blob, toc) = (Digest::of(b"blob"), Digest::of(b"toc"));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob, "size": 2 },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": blob,
            "size": 4,
            "annotations": { "containerd.io/snapshot/stargz/toc.digest": toc },
        }],
    });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let digest = registry.add_manifest("a/b", "1", kind, manifest.to_string());
    let access =
        |path: &str, at: u32| json!({ "layer": 0, "path": path, "offset": 0, "length": 10, "at": at });
    let profile = json!({
        "version": 1,
        "manifest": digest,
        "layers": [{ "blob": blob, "toc": toc }],
        "accesses": [access("z", 0), access("dir/y", 3), access("z", 9)],
    });
    (format!("{}/a/b:1", registry.host()), profile)
}

fn file(directory: &Path, name: &str, content: &[u8]) -> String {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_profile_is_pushed_and_pulled_in_both_forms() {
    for no_referrers in [false, true] {
        let options = RegistryOptions { no_referrers, ..RegistryOptions::default() };
        let registry = TestRegistry::start(options).unwrap();
        let (image, profile) = image(&registry);
        let (host, directory) = (registry.host(), tempfile::tempdir().unwrap());
        let insecure = ["--insecure", &host];
        let pull = [&["profile", "pull", &image][..], &insecure].concat();
        assert!(failure(&pull).contains("has no profile in its registry"));
        let path = file(directory.path(), "profile.json", profile.to_string().as_bytes());
        let push = [&["profile", "push", &image, "--file", &path, "--json"][..], &insecure].concat();
        let pushed = run(&push);
        assert_eq!(pushed["subject"], profile["manifest"]);
        let artifact = registry.manifest("a/b", pushed["digest"].as_str().unwrap()).unwrap();
        let artifact: Value = serde_json::from_slice(&artifact).unwrap();
        assert_eq!(
            (&artifact["artifactType"], &artifact["subject"]["digest"]),
            (&json!(TYPE), &profile["manifest"])
        );
        assert_eq!(run(&pull), profile);
        let copy = directory.path().join("copy.json");
        run(&[&pull[..], &["-o", copy.to_str().unwrap()]].concat());
        assert_eq!(serde_json::from_slice::<Value>(&fs::read(copy).unwrap()).unwrap(), profile);
    }
}

#[test]
fn what_is_no_profile_or_of_another_image_is_not_taken() {
    let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
    let (image, mut profile) = image(&registry);
    let (host, directory) = (registry.host(), tempfile::tempdir().unwrap());
    let push = |content: &[u8]| {
        let path = file(directory.path(), "profile.json", content);
        failure(&["profile", "push", &image, "--file", &path, "--insecure", &host])
    };
    assert!(push(b"{}").contains("is no profile"));
    profile["manifest"] = json!(Digest::of(b"another"));
    assert!(push(profile.to_string().as_bytes()).contains("cannot push the profile"));
    let nobody = directory.path().join("admin.sock");
    let message = failure(&["profile", "show", &image, "--admin", nobody.to_str().unwrap()]);
    assert!(message.contains("is starlingd running"), "{message}");
}

#[test]
fn a_layer_is_converted_in_the_order_of_a_profile() {
    let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
    let (_, profile) = image(&registry);
    let directory = tempfile::tempdir().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["a", "dir/y", "m", "z"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &b"hello"[..]).unwrap();
    }
    let layer = file(directory.path(), "layer.tar", &tar.into_inner().unwrap());
    let path = file(directory.path(), "profile.json", profile.to_string().as_bytes());
    let (plain, ordered) = (directory.path().join("plain"), directory.path().join("ordered"));
    run(&["convert", "--layer", "-q", &layer, plain.to_str().unwrap()]);
    run(&["convert", "--layer", "-q", "--profile", &path, &layer, ordered.to_str().unwrap()]);
    let names = |blob: &Path| {
        let inflated = flate2::read::MultiGzDecoder::new(fs::File::open(blob).unwrap());
        let mut archive = tar::Archive::new(inflated);
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&plain)[..2], [".no.prefetch.landmark", "a"]);
    let ordered = names(&ordered);
    let files: Vec<_> = ordered.iter().filter(|name| !name.ends_with('/')).take(5).collect();
    assert_eq!(files, ["z", "dir/y", ".prefetch.landmark", "a", "m"]);
}
