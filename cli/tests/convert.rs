//! `starling convert` and `starling inspect` as a user runs them, on images with everything in them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "convert/layout.rs"]
mod layout;

use std::{
    io::Read,
    path::Path,
    process::{Command, Output},
};

use estargz::Digest;
use serde_json::{Value, json};

use layout::{Layout, gzip, tree_tar, zstd};

const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn starling(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling")).args(arguments).output().unwrap()
}

fn run(arguments: &[&str]) -> Value {
    let output = starling(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn inflate(blob: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut data).unwrap();
    data
}

/// An image for two platforms that share a layer, with an attestation for one of them.
fn sample(dir: &Path) -> Layout {
    let layout = Layout::create(dir);
    let (base, base_diff) = (tree_tar("base"), Digest::of(&tree_tar("base")));
    let shared = layout.layer(&gzip(&base), "application/vnd.docker.image.rootfs.diff.tar.gzip", json!({}));
    let top = tree_tar("top");
    let not_utf8 = layout::not_utf8_tar();
    let amd64 = layout.image(
        "amd64",
        "application/vnd.docker.distribution.manifest.v2+json",
        &[
            (shared.clone(), base_diff),
            (layout.layer(&zstd(&top), &format!("{OCI_LAYER}+zstd"), zstd_annotations()), Digest::of(&top)),
            (layout.layer(&gzip(&not_utf8), &format!("{OCI_LAYER}+gzip"), json!({})), Digest::of(&not_utf8)),
        ],
    );
    let other = tree_tar("other");
    let arm64 = layout.image(
        "arm64",
        "application/vnd.oci.image.manifest.v1+json",
        &[(shared, base_diff), (layout.layer(&other, OCI_LAYER, json!({})), Digest::of(&other))],
    );
    let attestation = layout.attestation(&amd64, IN_TOTO);
    layout.tag("v1", &[amd64, arm64, attestation]);
    layout
}

fn zstd_annotations() -> Value {
    json!({ "io.github.containers.zstd-chunked.manifest-checksum": "sha256:0", "kept": "yes" })
}

#[test]
fn a_whole_image_is_converted() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(&dir.path().join("src"));
    let target = Layout::at(&dir.path().join("dst"));
    let report = run(&["convert", "--json", &source.name("v1"), &target.name("v2")]);
    let index = target.tagged("v2");
    assert_eq!(report["digest"], target.digest_of("v2"));
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let [amd64, arm64, attestation] = index["manifests"].as_array().unwrap().as_slice() else {
        panic!("{index}")
    };
    assert_eq!(amd64["platform"]["architecture"], "amd64");

    // The attestation is the same bytes, and about the new manifest.
    let old = &source.tagged("v1")["manifests"][2];
    assert_eq!(attestation["digest"], old["digest"]);
    assert_eq!(target.blob(attestation), source.blob(old));
    assert_eq!(attestation["annotations"]["vnd.docker.reference.digest"], amd64["digest"]);
    for blob in target.json(attestation)["layers"].as_array().unwrap() {
        assert_eq!(target.blob(blob), source.blob(blob));
    }

    for platform in [amd64, arm64] {
        check_manifest(&target, platform);
    }
    let layers = |platform| target.json(platform)["layers"].as_array().unwrap().clone();
    assert_eq!(layers(amd64)[0], layers(arm64)[0], "a shared layer is converted once");
    assert_eq!(layers(amd64)[1]["annotations"]["kept"], "yes");
    assert_eq!(
        layers(amd64)[1]["annotations"]["io.github.containers.zstd-chunked.manifest-checksum"],
        Value::Null
    );
    let config = target.json(&target.json(amd64)["config"]);
    assert_eq!(
        (&config["architecture"], &config["history"][0]["created_by"]),
        (&json!("amd64"), &json!("test"))
    );
}

/// Checks what every converted manifest must be.
fn check_manifest(target: &Layout, descriptor: &Value) {
    let manifest = target.json(descriptor);
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(descriptor["mediaType"], manifest["mediaType"]);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    let config = target.json(&manifest["config"]);
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(diff_ids.len(), layers.len());
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        assert_eq!(layer["mediaType"], format!("{OCI_LAYER}+gzip"));
        let blob = target.blob(layer);
        assert_eq!(layer["size"], blob.len());
        let tar = inflate(&blob);
        assert_eq!(*diff_id, Digest::of(&tar).to_string());
        if let Some(size) = layer["annotations"]["io.containers.estargz.uncompressed-size"].as_str() {
            assert_eq!(size, tar.len().to_string());
        }
    }
}

#[test]
fn a_layer_that_cannot_be_lazy_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(&dir.path().join("src"));
    let target = Layout::at(&dir.path().join("dst"));
    let output = starling(&["convert", &source.name("v1"), &target.name("v1")]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("kept plain") && text.contains("is not UTF-8"), "{text}");
    let old = source.json(&source.tagged("v1")["manifests"][0])["layers"][2].clone();
    let new = target.json(&target.tagged("v1")["manifests"][0])["layers"][2].clone();
    assert_eq!(new, old);
    let inspection = run(&["inspect", "--json", "--platform", "linux/amd64", &target.name("v1")]);
    let lazy: Vec<_> =
        inspection["layers"].as_array().unwrap().iter().map(|layer| layer["lazy"] == true).collect();
    assert_eq!(lazy, [true, true, false]);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(&dir.path().join("src"));
    let digests: Vec<_> = ["1", "2", "5"]
        .iter()
        .map(|threads| {
            let target = Layout::at(&dir.path().join(threads));
            run(&["convert", "--json", "--threads", threads, &source.name("v1"), &target.name("v1")])["digest"].clone()
        })
        .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn an_estargz_image_is_left_as_it_is_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(&dir.path().join("src"));
    let target = Layout::at(&dir.path().join("dst"));
    let convert = |arguments: &[&str]| run(&[&["convert", "--json"], arguments].concat());
    let once = convert(&[&source.name("v1"), &target.name("once")]);
    let twice = convert(&[&target.name("once"), &target.name("twice")]);
    assert_eq!(once["digest"], twice["digest"]);
    assert_eq!(twice["images"][0]["layers"][0]["action"], "reused");
    let forced = convert(&["--force", &target.name("once"), &target.name("forced")]);
    assert_eq!(forced["images"][0]["layers"][0]["action"], "converted");
    assert_eq!(forced["digest"], once["digest"], "landmark and table of contents are not added twice");
    let fast =
        convert(&["--force", "--level", "1", "--pack", "100000", &target.name("once"), &target.name("fast")]);
    assert_ne!(fast["digest"], once["digest"]);
}

#[test]
fn one_platform_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(&dir.path().join("src"));
    let target = Layout::at(&dir.path().join("dst"));
    run(&["convert", "--json", "--platform", "linux/arm64", &source.name("v1"), &target.name("v1")]);
    let index = target.tagged("v1");
    assert_eq!(
        index["manifests"].as_array().unwrap().len(),
        1,
        "the attestation of the other platform is left out"
    );
    let output = starling(&["convert", "--platform", "linux/s390x", &source.name("v1"), &target.name("v2")]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing for the given platforms"));
}

#[test]
fn damaged_blobs_end_the_conversion() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(&dir.path().join("src"));
    let target = Layout::at(&dir.path().join("dst"));
    let manifest = source.json(&source.tagged("v1")["manifests"][1]);
    let path = source.path(manifest["layers"][1]["digest"].as_str().unwrap());
    let mut blob = std::fs::read(&path).unwrap();
    blob[600] ^= 1;
    std::fs::write(&path, blob).unwrap();
    let output = starling(&["convert", &source.name("v1"), &target.name("v1")]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("has the wrong content"), "{message}");
    assert!(!dir.path().join("dst/index.json").exists());
    let left = std::fs::read_dir(dir.path().join("dst")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("partial")));
}

#[test]
fn gnu_tar_extracts_a_converted_layer() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, out) = (dir.path().join("tree"), dir.path().join("out"));
    layout::make_tree(&tree);
    std::fs::create_dir(&out).unwrap();
    let (plain, layer) = (dir.path().join("plain.tar"), dir.path().join("layer.tar.gz"));
    let tar = |arguments: &[&str]| Command::new("tar").args(arguments).status();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    match tar(&["--format=pax", "-cf", &path(&plain), "-C", &path(&tree), "."]) {
        Err(_) => return println!("skipped: no tar program"),
        Ok(status) => assert!(status.success()),
    }
    run(&["convert", "--layer", "--json", "--chunk-size", "65536", &path(&plain), &path(&layer)]);
    assert!(Command::new("gzip").arg("-t").arg(&layer).status().unwrap().success());
    assert!(tar(&["-xzf", &path(&layer), "-C", &path(&out)]).unwrap().success());
    for name in [".no.prefetch.landmark", "stargz.index.json"] {
        std::fs::remove_file(out.join(name)).unwrap();
    }
    let diff = Command::new("diff").args(["-r", "--no-dereference"]).args([&tree, &out]).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    let info = run(&["inspect", "--json", "--files", &path(&layer)]);
    assert_eq!(info["layers"][0]["lazy"], true);
    assert_eq!(
        info["layers"][0]["toc"]["chunks"].as_u64().unwrap(),
        1 + 1 + 16,
        "landmark, small file, 1 MB"
    );
}

#[test]
fn an_image_goes_from_registry_to_registry() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(&dir.path().join("src"));
    let registry = testkit::TestRegistry::start(testkit::RegistryOptions::default()).unwrap();
    registry.add_layout(source.directory(), "v1", "from/image", "v1").unwrap();
    let (from, to) =
        (format!("{}/from/image:v1", registry.host()), format!("{}/to/image:esgz", registry.host()));
    let report = run(&["convert", "--json", &from, &to]);
    let local = Layout::at(&dir.path().join("dst"));
    let same = run(&["convert", "--json", &source.name("v1"), &local.name("v1")]);
    assert_eq!(report["digest"], same["digest"]);
    let index = registry.manifest("to/image", "esgz").unwrap();
    assert_eq!(Digest::of(&index).to_string(), report["digest"].as_str().unwrap());
    let inspection = run(&["inspect", "--json", "--platform", "linux/arm64", &to]);
    assert!(inspection["layers"].as_array().unwrap().iter().all(|layer| layer["lazy"] == true));
    assert!(inspection["layers"][0]["toc"]["digest"].is_string());
    assert_eq!(
        local.json(&local.tagged("v1")["manifests"][0])["layers"][0]["annotations"][TOC_DIGEST],
        report["images"][0]["layers"][0]["toc_digest"]
    );
}

#[test]
fn an_interrupted_conversion_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(&dir.path().join("src"));
    let target = Layout::at(&dir.path().join("dst"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_starling"))
        .args(["convert", "--quiet", "--level", "12", &source.name("v1"), &target.name("v1")])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let started = |name: std::ffi::OsString| name.to_string_lossy().contains("partial");
    let list = || {
        std::fs::read_dir(dir.path().join("dst"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name())
    };
    while !list().any(started) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    if killed.success() && !output.status.success() {
        assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
        assert!(!list().any(started));
        assert!(!dir.path().join("dst/index.json").exists());
    } else {
        println!("skipped: the conversion was over before it could be interrupted");
    }
}
