//! The registry is out of reach: what is on disk is there at once, and the rest comes when the registry does.

use std::{
    collections::HashMap,
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use testkit::{
    registry::{Auth, Fault, On, RegistryOptions, TestRegistry},
    requires, skip_unless,
};

use super::{
    image::{Image, Layer},
    node::{Node, ON_DEMAND, PROGRAM},
};

/// Layers of an image.
const LAYERS: usize = 20;
/// For a development build on a machine that does other things as well. The time is printed.
const UP_WITHIN: Duration = Duration::from_secs(5);

/// Images of a test run; set in the environment to measure with more layers.
fn images() -> usize {
    std::env::var("STARLING_LAYERS").map_or(5, |text| text.parse::<usize>().unwrap() / LAYERS)
}

/// The program in a network namespace of its own, where not even names can be resolved. Another program can be set in
/// the environment, to measure a release build.
fn without_network(directory: &Path) -> PathBuf {
    let program = std::env::var("STARLING_PROGRAM").unwrap_or_else(|_| PROGRAM.to_owned());
    let script = directory.join("without-network");
    fs::write(&script, format!("#!/bin/sh\nexec unshare --net -- {program} \"$@\"\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// Anyone gets a token, which ends while the daemon is away.
fn options() -> RegistryOptions {
    let auth =
        Auth::Bearer { login: None, lifetime: Duration::from_secs(2), post: false, identity_token: None };
    RegistryOptions { auth, ..RegistryOptions::default() }
}

fn push(registry: &TestRegistry, images: usize) -> Vec<Image> {
    let layer = |n| Layer::new(registry, n as u64, 2, 5000);
    let image = |n: usize| {
        let layers = (n * LAYERS..(n + 1) * LAYERS).map(layer).collect();
        Image::push(registry, &format!("image-{n}"), layers)
    };
    (0..images).map(image).collect()
}

/// Where each layer is shown, by the digest of its table of contents.
fn shown(node: &Node) -> HashMap<String, PathBuf> {
    let mountpoint = node.daemon.root().join("snapshotter/l");
    let layers = node.status().layers.into_iter();
    layers.filter_map(|layer| Some((layer.toc, mountpoint.join(layer.slot?.to_string())))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_any_network_brings_every_layer_back_at_once() {
    skip_unless!(requires::fuse(), requires::program("unshare", "--version"));
    let registry = TestRegistry::start(options()).unwrap();
    let images = push(&registry, images());
    // Everything is on disk but the last image, which the background cannot complete without the registry.
    let (last, complete) = images.split_last().unwrap();
    let mut node = Node::start("").await;
    for image in complete {
        node.pull(image).await;
    }
    let (layers, shown) = (images.iter().flat_map(|image| &image.layers), shown(&node));
    for (path, layer) in layers.filter_map(|layer| Some((shown.get(&layer.toc.to_string())?, layer))) {
        assert!(layer.files.iter().all(|(name, bytes)| fs::read(path.join(name)).unwrap() == *bytes));
    }
    registry.inject(On::PlainRange, Fault::Reset, None);
    node.pull(last).await;
    drop(registry);
    let (layers, shown) = (images.iter().flat_map(|image| &image.layers), self::shown(&node));
    let paths: Vec<_> = layers.map(|layer| (&shown[&layer.toc.to_string()], layer)).collect();
    let program = without_network(node.directory.path());
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let took = node.restart_as(&program, signal).await;
        let up = Instant::now();
        for (path, layer) in &paths {
            assert_eq!(fs::read_dir(path.join("usr")).unwrap().count(), layer.files.len());
        }
        let listed = up.elapsed();
        for (path, layer) in paths.iter().take(complete.len() * LAYERS) {
            assert!(fs::read(path.join("usr/file-1")).unwrap() == layer.files["usr/file-1"]);
        }
        println!("{} layers: up after {took:.1?}, all listed {listed:.1?} later", paths.len());
        assert!(took + listed < UP_WITHIN, "{took:?} + {listed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_bytes_fail_within_a_bound_and_come_with_the_registry() {
    skip_unless!(requires::fuse());
    let registry = TestRegistry::start(options()).unwrap();
    let address = registry.host();
    let image = push(&registry, 1).remove(0);
    let mut node = Node::start(&format!("{ON_DEMAND}[store]\nread_timeout_sec = 3\n")).await;
    node.pull(&image).await;
    let (cached, missing) = (&image.layers[0], &image.layers[1]);
    assert!(node.read(cached) == cached.files);
    drop(registry);
    node.restart(Signal::SIGTERM).await;

    let path = node.path(missing).join("usr/file-0");
    let asked = Instant::now();
    let error = fs::read(&path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EIO), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert!(node.read(cached) == cached.files);

    // It comes back while somebody has the file open.
    let mut open = fs::File::open(&path).unwrap();
    let listener = std::net::TcpListener::bind(address).unwrap();
    let registry = TestRegistry::start_on(listener, options()).unwrap();
    push(&registry, 1);
    let (began, mut bytes) = (Instant::now(), Vec::new());
    while open.read_to_end(&mut bytes).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", node.daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(bytes == missing.files["usr/file-0"]);
    assert!(node.read(missing) == missing.files);
}
