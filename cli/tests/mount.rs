//! `starling mount` as a user runs it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use testkit::{
    Fault, On, RegistryOptions, TestRegistry,
    oci_layout::{ImageConfig, LayoutBuilder},
    requires,
    scratch::{Scratch, mounts_below},
    skip_unless,
};

/// A running `starling mount`.
struct Mounted {
    child: Child,
    said: String,
}

impl Mounted {
    fn start(scratch: &Scratch, arguments: &[&str]) -> Self {
        let temporary = scratch.path().join("tmp");
        fs::create_dir_all(&temporary).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_starling"))
            .arg("mount")
            .args(arguments)
            .env("TMPDIR", temporary)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        Self { child, said }
    }

    fn end(mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        self.child.wait().unwrap()
    }
}

/// A tar of files; a name that ends with a slash is a directory.
fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if name.ends_with('/') { 0o755 } else { 0o644 });
        header.set_size(text.len() as u64);
        header.set_uid(7);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn add_estargz(builder: &mut LayoutBuilder, tar: &[u8]) {
    let built = estargz::write::build(tar, &estargz::write::Options::default()).unwrap();
    let annotations = json!({ "containerd.io/snapshot/stargz/toc.digest": built.toc_digest.to_string() });
    builder.add_blob_layer(&built.blob, &built.diff_id.to_string(), &annotations).unwrap();
}

/// Three layers, the middle one plain; upper ones delete and replace what is below.
fn sample(scratch: &Scratch) -> PathBuf {
    let dir = scratch.path().join("image");
    let mut builder = LayoutBuilder::create(&dir).unwrap();
    add_estargz(
        &mut builder,
        &tar_of(&[("gone", "x"), ("kept", "below"), ("hidden/", ""), ("hidden/old", "old")]),
    );
    let plain = scratch.path().join("plain.tar");
    fs::write(&plain, tar_of(&[(".wh.gone", ""), ("hidden/.wh..wh..opq", ""), ("hidden/new", "new")]))
        .unwrap();
    builder.add_gzip_layer(&plain).unwrap();
    add_estargz(&mut builder, &tar_of(&[("top", &"0123456789".repeat(100_000))]));
    builder.finish("1", &ImageConfig::default()).unwrap();
    dir
}

fn check_sample(target: &Path) {
    let read = |name: &str| fs::read_to_string(target.join(name)).unwrap();
    assert_eq!(read("kept"), "below");
    assert_eq!(read("hidden/new"), "new");
    assert_eq!(read("top"), "0123456789".repeat(100_000));
    assert!(!target.join("gone").exists());
    assert!(!target.join("hidden/old").exists());
    let mut names: Vec<_> = fs::read_dir(target)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["hidden", "kept", "top"]);
    assert_eq!(fs::metadata(target.join("kept")).unwrap().uid(), 7);
    let refused = fs::write(target.join("kept"), "other").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::errno::Errno::EROFS as i32));
}

fn target(scratch: &Scratch) -> PathBuf {
    let target = scratch.path().join("target");
    fs::create_dir_all(&target).unwrap();
    target
}

#[test]
fn an_image_of_a_registry_is_mounted_and_leaves_nothing() {
    skip_unless!(requires::fuse());
    let scratch = Scratch::new("starling-mount-").unwrap();
    let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
    registry.add_layout(&sample(&scratch), "1", "mounted", "1").unwrap();
    let target = target(&scratch);
    let image = format!("{}/mounted:1", registry.host());
    let mounted = Mounted::start(&scratch, &[&image, target.to_str().unwrap()]);
    assert!(mounted.said.contains("2 of 3 layers lazy"), "{}", mounted.said);
    check_sample(&target);
    assert!(mounted.end(Signal::SIGTERM).success());
    assert_eq!(mounts_below(scratch.path()), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    assert_eq!(fs::read_dir(scratch.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn what_was_fetched_is_kept_in_a_root() {
    skip_unless!(requires::fuse());
    let scratch = Scratch::new("starling-mount-").unwrap();
    let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
    registry.add_layout(&sample(&scratch), "1", "kept", "1").unwrap();
    let (target, root) = (target(&scratch), scratch.path().join("root"));
    let image = format!("{}/kept:1", registry.host());
    let arguments = ["--root", root.to_str().unwrap(), &image, target.to_str().unwrap()];
    let mounted = Mounted::start(&scratch, &arguments);
    check_sample(&target);
    assert!(mounted.end(Signal::SIGINT).success());
    registry.inject(On::Blob, Fault::Status(404), None);
    let mounted = Mounted::start(&scratch, &arguments);
    check_sample(&target);
    assert!(mounted.end(Signal::SIGINT).success());
}

#[test]
fn a_layout_is_mounted_and_a_mount_in_use_is_detached() {
    skip_unless!(requires::fuse());
    let scratch = Scratch::new("starling-mount-").unwrap();
    let image = format!("oci:{}", sample(&scratch).display());
    let target = target(&scratch);
    let mounted = Mounted::start(&scratch, &[&image, target.to_str().unwrap()]);
    check_sample(&target);
    let open = fs::File::open(target.join("kept")).unwrap();
    assert!(!mounted.end(Signal::SIGINT).success());
    assert_eq!(mounts_below(scratch.path()), Vec::<PathBuf>::new());
    drop(open);
}

#[test]
fn many_layers_under_a_long_path_are_mounted() {
    skip_unless!(requires::fuse());
    let scratch = Scratch::new("starling-mount-").unwrap();
    let dir = scratch.path().join("image");
    let mut builder = LayoutBuilder::create(&dir).unwrap();
    for layer in 0..60 {
        add_estargz(&mut builder, &tar_of(&[(&format!("layer-{layer}"), "x"), ("last", &layer.to_string())]));
    }
    builder.finish("1", &ImageConfig::default()).unwrap();
    let (target, root) = (target(&scratch), scratch.path().join("a-long-name".repeat(8)));
    let image = format!("oci:{}:1", dir.display());
    let arguments = ["--root", root.to_str().unwrap(), &image, target.to_str().unwrap()];
    let mounted = Mounted::start(&scratch, &arguments);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 61);
    assert_eq!(fs::read_to_string(target.join("last")).unwrap(), "59");
    assert!(mounted.end(Signal::SIGTERM).success());
}

#[test]
fn what_cannot_be_mounted_leaves_nothing() {
    skip_unless!(requires::fuse());
    let scratch = Scratch::new("starling-mount-").unwrap();
    let target = target(&scratch);
    let image = format!("oci:{}:2", sample(&scratch).display());
    let mut mounted = Mounted::start(&scratch, &[&image, target.to_str().unwrap()]);
    assert_eq!(mounted.said, "");
    assert!(!mounted.child.wait().unwrap().success());
    assert_eq!(mounts_below(scratch.path()), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(scratch.path().join("tmp")).unwrap().count(), 0);
}
