//! Lazy layers from end to end but for containerd: the real daemon, the real FUSE mount, a registry with faults.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "lazy/cache.rs"]
mod cache;
#[path = "lazy/client.rs"]
mod client;
#[path = "lazy/daemon_set.rs"]
mod daemon_set;
#[path = "lazy/handover.rs"]
mod handover;
#[path = "lazy/hanging.rs"]
mod hanging;
#[path = "lazy/image.rs"]
mod image;
#[path = "lazy/mirrors.rs"]
mod mirrors;
#[path = "lazy/node.rs"]
mod node;
#[path = "lazy/offline.rs"]
mod offline;
#[path = "lazy/profiles.rs"]
mod profiles;
#[path = "lazy/pulse.rs"]
mod pulse;
#[path = "lazy/readers.rs"]
mod readers;

use std::{fs, io::Write, time::Duration};

use estargz::Digest;
use nix::sys::signal::Signal;
use testkit::{
    blob::Blob,
    registry::{Auth, Fault, On, RegistryOptions, TestRegistry},
    requires, skip_unless,
};

use self::{
    client::Prepared,
    image::{Image, Layer, archive},
    node::{Node, ON_DEMAND},
};

fn registry() -> TestRegistry {
    TestRegistry::start(RegistryOptions::default()).unwrap()
}

fn image(registry: &TestRegistry, name: &str, layers: u64) -> Image {
    let seed = Digest::of(name.as_bytes()).as_bytes()[0];
    let layer = |n| Layer::new(registry, u64::from(seed) * 1000 + n, 3, 300_000);
    Image::push(registry, name, (0..layers).map(layer).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_with_one_request_a_layer_and_read_as_it_is() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "app", 4);
    let mut node = Node::start(ON_DEMAND).await;
    let names = node.pull(&image).await;
    let requests = registry.requests();
    let count = |part: &str| requests.iter().filter(|request| request.path.contains(part)).count();
    assert_eq!(count(&format!("/manifests/{}", image.manifest)), 1);
    for layer in &image.layers {
        assert_eq!(count(&layer.blob.to_string()), 1, "{requests:#?}");
    }
    assert!(node.usage(&names[3]).await > 0);

    for layer in &image.layers {
        assert!(node.read(layer) == layer.files);
    }
    let mounts = node.view("look", &names[1]).await;
    assert_eq!(mounts[0].r#type, "bind", "two layers are one directory: {mounts:?}");
    let status = node.layer(&image.layers[0]).unwrap();
    assert_eq!((status.files.percent_present, status.background.as_str()), (100.0, "complete"));
    assert_eq!(status.references.join(" "), image.reference);
    assert!(status.misses > 0 && status.demand_bytes_fetched > 0, "{status:?}");
    let metrics = node.metrics();
    for line in [
        "starling_prepares_total{outcome=\"lazy\",reason=\"none\"} 4",
        "starling_rpc_requests_total{method=\"Prepare\",code=\"AlreadyExists\"} 4",
        "starling_layers{state=\"complete\"} 4",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let log = node.daemon.log();
    assert_eq!(log.matches("\"remote-snapshot-prepared\":\"true\"").count(), 4, "{log}");

    let documents = node.daemon.root().join("images").join(image.manifest.hex());
    node.eventually("the configuration is kept", |_| documents.join("config.json").exists()).await;
    assert_eq!(Digest::of(&fs::read(documents.join("manifest.json")).unwrap()), image.manifest);
}

#[tokio::test(flavor = "multi_thread")]
async fn buildkits_labels_work_and_layers_are_read_before_their_turn() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "built", 3);
    let mut node = Node::start(ON_DEMAND).await;
    let labels: Vec<_> = (0..3).map(|n| image.buildkit_labels(n)).collect();
    let mut names = node.pull_with(&labels[..1]).await;
    node.eventually("the others are read early", |node| {
        node.metrics().contains("starling_early_layers 2") && registry.requests().len() == 3
    })
    .await;
    for labels in &labels[1..] {
        let Prepared::Lazy(name) = node.prepare(labels, names.last().unwrap()).await else {
            panic!("fell back")
        };
        names.push(name);
    }
    assert_eq!(registry.requests().len(), 3, "{:#?}", registry.requests());
    assert!(node.metrics().contains("starling_early_layers 0"));
    assert!(image.layers.iter().all(|layer| node.read(layer) == layer.files));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_without_the_registry_everything_is_there() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "kept", 2);
    let mut node = Node::start("").await;
    let names = node.pull(&image).await;
    node.eventually("the background completes the layers", |node| {
        node.status().layers.iter().all(|layer| layer.background == "complete")
    })
    .await;
    drop(registry);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        node.restart(signal).await;
        assert_eq!(node.list("").await.len(), 2);
        assert_eq!(node.status().layers.len(), 2);
        for layer in &image.layers {
            assert!(node.read(layer) == layer.files);
        }
        let key = format!("container-{signal}");
        let mounts = node.view(&key, &names[1]).await;
        assert!(!mounts.is_empty());
        node.remove(&key).await;
        assert_eq!(node.status().images[0].reference, image.reference);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_a_container_uses_is_left_and_a_new_container_starts_after_the_restart() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "busy", 2);
    let mut node = Node::start("").await;
    let names = node.pull(&image).await;
    node.eventually("the layers are complete", |node| {
        node.status().layers.iter().all(|layer| layer.background == "complete")
    })
    .await;
    drop(registry);
    let container = node.mount("first", &names[1]).await;
    assert_eq!(fs::read(container.join("usr/file-0")).unwrap(), image.layers[1].files["usr/file-0"]);
    node.restart(Signal::SIGTERM).await;
    assert!(node.daemon.log().contains("their mount is left"), "{}", node.daemon.log());
    let after = node.mount("second", &names[1]).await;
    for (path, bytes) in &image.layers[1].files {
        assert!(fs::read(after.join(path)).unwrap() == *bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_snapshot_needs_is_deleted_by_cleanup_and_nothing_else() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let (kept, gone) = (image(&registry, "stays", 1), image(&registry, "goes", 2));
    let mut node = Node::start(ON_DEMAND).await;
    node.pull(&kept).await;
    let names = node.pull(&gone).await;
    let entries = |node: &Node, name: &str| fs::read_dir(node.daemon.root().join(name)).unwrap().count();
    assert_eq!((entries(&node, "layers"), entries(&node, "images")), (3, 2));
    for name in names.iter().rev() {
        node.remove(name).await;
    }
    assert_eq!(entries(&node, "layers"), 3);
    node.cleanup().await;
    assert_eq!((entries(&node, "layers"), entries(&node, "images")), (1, 1));
    assert_eq!(node.status().layers.len(), 1);
    assert!(node.read(&kept.layers[0]) == kept.layers[0].files);

    // The same layers come back in new slots.
    node.pull(&gone).await;
    assert!(node.read(&gone.layers[1]) == gone.layers[1].files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_opened_ahead_and_not_wanted_goes_after_a_while() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "half", 3);
    let mut node = Node::start(&format!("resolve_result_entry_ttl_sec = 1\n{ON_DEMAND}")).await;
    node.pull_with(&[image.containerd_labels(0)]).await;
    node.eventually("the others are opened", |node| node.status().layers.len() == 3).await;
    node.eventually("the others are deleted", |node| node.status().layers.len() == 1).await;
    assert!(node.read(&image.layers[0]) == image.layers[0].files);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_images_share_a_layer_and_either_can_go() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let layer = Layer::new(&registry, 77, 3, 300_000);
    let first = Image::push(&registry, "first", vec![layer.clone()]);
    let second = Image::push(&registry, "second", vec![layer.clone(), Layer::new(&registry, 78, 1, 1000)]);
    let mut node = Node::start(ON_DEMAND).await;
    let names = node.pull(&first).await;
    // containerd would find the chain and not ask; another namespace asks, under another parent.
    let mut labels = second.containerd_labels(0);
    labels.insert("containerd.io/snapshot.ref".to_owned(), "other".to_owned());
    node.pull_with(&[labels]).await;
    assert_eq!(node.layer(&layer).unwrap().references.len(), 2);
    node.remove(&names[0]).await;
    node.cleanup().await;
    assert!(node.read(&layer) == layer.files);
}

/// A reason to fall back, and what brings it about.
struct Case {
    name: &'static str,
    code: &'static str,
    config: &'static str,
    spoil: fn(&TestRegistry, &mut Image),
}

const CASES: &[Case] = &[
    Case {
        name: "plain",
        code: "not-estargz",
        config: "",
        spoil: |registry, image| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&archive(&image.layers[0].files)).unwrap();
            let blob = gzip.finish().unwrap();
            image.layers[0].blob = Digest::of(&blob);
            registry.add_blob(blob);
        },
    },
    Case {
        name: "wrong-toc",
        code: "bad-toc",
        config: "",
        spoil: |_, image| image.layers[0].toc = Digest::of(b"another"),
    },
    Case {
        name: "login",
        code: "unauthorized",
        config: "",
        spoil: |registry, _| {
            registry.set_auth(Auth::Basic { user: "u".to_owned(), password: "p".to_owned() })
        },
    },
    Case {
        name: "forbidden",
        code: "unauthorized",
        config: "",
        spoil: |registry, _| registry.inject(On::Blob, Fault::Status(403), None),
    },
    Case {
        name: "missing",
        code: "not-found",
        config: "",
        spoil: |_, image| image.layers[0].blob = Digest::of(b"nothing"),
    },
    Case {
        name: "broken",
        code: "registry-unavailable",
        config: "[blob]\nmax_retries = 1\nmin_wait_msec = 1\n",
        spoil: |registry, _| registry.inject(On::Blob, Fault::Status(500), None),
    },
    Case {
        name: "not-utf8",
        code: "unsupported",
        config: "",
        spoil: |registry, image| {
            let entry = serde_json::json!({ "name": "caf\u{fffd}", "type": "fifo" });
            image.layers[0] = Layer::of(registry, Blob::default().entry(entry).finish());
        },
    },
    Case {
        name: "over-limit",
        code: "over-limit",
        config: "",
        spoil: |registry, image| {
            image.layers[0] = Layer::of(registry, Blob::default().file(&"n".repeat(300), b"x", 1).finish());
        },
    },
    Case {
        name: "whole-blobs",
        code: "ranges-unsupported",
        config: "",
        spoil: |registry, image| {
            // A small blob would be read whole.
            image.layers[0] = Layer::new(registry, 4711, 2, 1_000_000);
            registry.inject(On::Blob, Fault::IgnoreRange, None);
        },
    },
    Case {
        name: "slow",
        code: "deadline",
        config: "[prepare]\ndeadline_sec = 1\n",
        spoil: |registry, _| registry.inject(On::Blob, Fault::Stall, None),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_to_fall_back_is_told_and_leaves_writable_mounts() {
    skip_unless!(requires::fuse());
    for Case { name, code, config, spoil } in CASES {
        let registry = registry();
        let mut image = image(&registry, name, 1);
        spoil(&registry, &mut image);
        let mut node = Node::start(&format!("{ON_DEMAND}{config}")).await;
        let prepared = node.prepare(&image.containerd_labels(0), "").await;
        let Prepared::Ordinary(mounts) = prepared else { panic!("{name} did not fall back") };
        assert!(mounts.iter().all(|mount| !mount.options.contains(&"ro".to_owned())), "{name}: {mounts:?}");
        let (told, reason) = node.reason(&image, 0).expect(name);
        assert_eq!(told, *code, "{name}: {reason}");
        assert!(reason.len() > 10, "{name}: {reason}");
        let metric = format!("starling_prepares_total{{outcome=\"fall-back\",reason=\"{code}\"}} 1");
        assert!(node.metrics().contains(&metric), "{name}");
        let log = node.daemon.log();
        let line =
            log.lines().find(|line| line.contains("\"remote-snapshot-prepared\":\"false\"")).expect(name);
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((line["code"].as_str(), line["reason"].as_str()), (Some(*code), Some(&*reason)), "{name}");
        if let Some(explained) = node.explain(&image) {
            for words in [&format!("reason ({code}): {reason}"), "remedy: "] {
                assert!(explained.contains(words), "{name}: {words:?} is not in\n{explained}");
            }
        } else {
            eprintln!("skipped the part with `starling explain`: starling is not built");
        }
        registry.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_vouches_for_nothing_falls_back_without_a_request_for_the_layer() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let mut image = image(&registry, "docker", 2);
    let manifest = format!(
        "{{\"schemaVersion\":2,\"config\":{{\"digest\":\"{0}\",\"size\":1}},\"layers\":[{{\"digest\":\"{0}\",\"size\":1}}]}}",
        image.layers[0].blob
    );
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    image.manifest = registry.add_manifest("docker", "1", media_type, manifest).parse().unwrap();
    let mut labels = image.containerd_labels(0);
    labels.remove("containerd.io/snapshot/stargz/toc.digest");
    let mut node = Node::start(ON_DEMAND).await;
    assert!(matches!(node.prepare(&labels, "").await, Prepared::Ordinary(_)));
    assert_eq!(node.reason(&image, 0).unwrap().0, "no-toc-digest");
    let blobs = registry.requests().into_iter().filter(|request| request.range.is_some()).count();
    assert_eq!(blobs, 0, "{:#?}", registry.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_label_is_made_up_for_by_the_manifest() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "unlabelled", 2);
    let labels: Vec<_> = (0..2)
        .map(|n| {
            let mut labels = image.containerd_labels(n);
            labels.remove("containerd.io/snapshot/stargz/toc.digest");
            labels
        })
        .collect();
    let mut node = Node::start(ON_DEMAND).await;
    node.pull_with(&labels).await;
    assert!(image.layers.iter().all(|layer| node.read(layer) == layer.files));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_cannot_be_had_delays_no_layer() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "stalled", 2);
    registry.inject(On::Manifest, Fault::Stall, None);
    let mut node = Node::start(ON_DEMAND).await;
    let began = std::time::Instant::now();
    node.pull(&image).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(image.layers.iter().all(|layer| node.read(layer) == layer.files));
    registry.clear_faults();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_without_image_labels_is_ordinary() {
    skip_unless!(requires::fuse());
    let mut node = Node::start(ON_DEMAND).await;
    let labels = [("containerd.io/snapshot.ref".to_owned(), "sha256:x".to_owned())].into();
    assert!(matches!(node.prepare(&labels, "").await, Prepared::Ordinary(_)));
    assert_eq!(node.status().images, []);
}
