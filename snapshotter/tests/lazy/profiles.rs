//! What one start reads is fetched ahead at the next cold one: on this machine, and on others through the registry.

use std::{fs, sync::Arc, time::Duration};

use estargz::Digest;
use nix::sys::signal::Signal;
use registry::{Reference, RegistryClient, RegistryConfig};
use snapshotter::{
    admin::ask_profile,
    profile::{self, Document},
};
use testkit::{
    registry::{RegistryOptions, Shaping, TestRegistry},
    requires, skip_unless,
};

use crate::{
    image::{Image, Layer},
    node::Node,
};

const QUIET: &str = "no_background_fetch = true\n";
/// Numbers of the files that the program reads, in its order.
const READ: [usize; 8] = [31, 4, 22, 17, 9, 38, 1, 26];

fn registry() -> TestRegistry {
    let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
    registry.set_shaping(Shaping { latency: Duration::from_millis(10), ..Shaping::default() });
    registry
}

fn image(registry: &TestRegistry, name: &str, seed: u64) -> Image {
    let layer = |n| Layer::new(registry, seed + n, 40, 150_000);
    Image::push(registry, name, (0..2).map(layer).collect())
}

/// Reads as a container does that starts: through the overlay of all layers.
async fn start(node: &mut Node, image: &Image, key: &str, name: &str) {
    let root = node.mount(key, name).await;
    for number in READ {
        let path = format!("usr/file-{number}");
        // The upper layer hides the lower one's files.
        assert!(fs::read(root.join(&path)).unwrap() == image.layers[1].files[&path]);
    }
}

fn misses(node: &Node) -> u64 {
    node.status().layers.iter().map(|layer| layer.misses).sum()
}

fn planned(node: &Node) -> u64 {
    node.status().layers.iter().map(|layer| layer.planned_bytes_fetched).sum()
}

fn document(node: &Node, image: &Image) -> Document {
    ask_profile(&node.daemon.admin(), &image.reference).unwrap()
}

fn expected() -> Vec<String> {
    READ.iter().map(|number| format!("usr/file-{number}")).collect()
}

fn client(registry: &TestRegistry) -> Arc<RegistryClient> {
    RegistryClient::new(RegistryConfig::default().with_insecure_host(&registry.host())).unwrap()
}

async fn push(registry: &TestRegistry, image: &Image, document: &Document) -> Digest {
    let reference: Reference = image.reference.parse().unwrap();
    profile::push(&client(registry), &reference, document).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_cold_start_finds_what_the_first_one_read() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "again", 100);
    let mut node = Node::start(QUIET).await;
    let names = node.pull(&image).await;
    start(&mut node, &image, "first", &names[1]).await;
    let cold = misses(&node);
    let recorded = document(&node, &image);
    assert_eq!(recorded.files(), expected());
    assert_eq!((recorded.manifest, recorded.layers.len()), (image.manifest, 1));

    // A warm start reads from the page cache, and changes nothing; neither does a restart.
    start(&mut node, &image, "second", &names[1]).await;
    assert_eq!(document(&node, &image), recorded);
    for target in ["first", "second"] {
        nix::mount::umount(&node.directory.path().join(target)).unwrap();
        node.remove(target).await;
    }
    node.restart(Signal::SIGTERM).await;
    assert_eq!(document(&node, &image), recorded);

    for name in names.iter().rev() {
        node.remove(name).await;
    }
    node.cleanup().await;
    assert!(node.status().layers.is_empty());
    let names = node.pull(&image).await;
    node.eventually("the plan is followed", |node| planned(node) >= READ.len() as u64 * 140_000).await;
    start(&mut node, &image, "third", &names[1]).await;
    assert!(misses(&node) * 4 <= cold, "{} misses, {cold} at first", misses(&node));
    let all = planned(&node);
    assert!(all < READ.len() as u64 * 150_000 * 3 / 2, "{all} bytes planned");
    assert!(node.metrics().contains(&format!("starling_fetched_bytes_total{{class=\"planned\"}} {all}")));
    assert_eq!(document(&node, &image).files(), expected());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_finds_a_profile_in_the_registry() {
    skip_unless!(requires::fuse());
    let registry = registry();
    for no_referrers in [false, true] {
        registry.set_no_referrers(no_referrers);
        let seed = 200 + 10 * u64::from(no_referrers);
        let image = image(&registry, &format!("shared-{no_referrers}"), seed);
        let mut first = Node::start(QUIET).await;
        let names = first.pull(&image).await;
        start(&mut first, &image, "first", &names[1]).await;
        first
            .eventually("it was looked for", |node| {
                node.metrics().contains("starling_profile_lookups_total{outcome=\"none\"} 1")
            })
            .await;
        let recorded = document(&first, &image);
        push(&registry, &image, &recorded).await;

        let mut second = Node::start(QUIET).await;
        let names = second.pull(&image).await;
        second.eventually("the plan is followed", |node| planned(node) >= READ.len() as u64 * 140_000).await;
        start(&mut second, &image, "first", &names[1]).await;
        assert_eq!(misses(&second), 0);
        assert!(second.metrics().contains("starling_profile_lookups_total{outcome=\"found\"} 1"));
        assert_eq!(document(&second, &image).files(), expected());

        registry.clear_requests();
        let mut third = Node::start(&format!("{QUIET}[profile]\nreferrers = false\n")).await;
        third.pull(&image).await;
        let asked = |part: &str| registry.requests().iter().any(|request| request.path.contains(part));
        assert!(!asked("/referrers/") && !asked("/manifests/sha256-"));
        assert_eq!(planned(&third), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_of_something_else_is_refused() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let (image, other) = (image(&registry, "mine", 300), image(&registry, "theirs", 310));
    let mut node = Node::start(QUIET).await;
    let names = node.pull(&other).await;
    start(&mut node, &other, "first", &names[1]).await;
    let theirs = document(&node, &other);
    let reference: Reference = image.reference.parse().unwrap();
    let client = client(&registry);
    let mine = client.manifest(&reference.with_digest(image.manifest)).await.unwrap();
    let subject = registry::Descriptor {
        media_type: mine.media_type.clone(),
        digest: image.manifest,
        size: mine.bytes.len() as u64,
        annotations: Default::default(),
        platform: None,
        other: serde_json::Map::new(),
    };
    // One of another image, one with another image's layers, and one that is none.
    let foreign = Document { manifest: image.manifest, ..theirs.clone() };
    let payloads = [
        serde_json::to_vec(&theirs).unwrap(),
        serde_json::to_vec(&foreign).unwrap(),
        b"{\"version\":".to_vec(),
    ];
    for payload in payloads {
        let referrer = registry::Referrer {
            artifact_type: profile::TYPE.to_owned(),
            media_type: profile::TYPE.to_owned(),
            payload: payload.into(),
            annotations: Default::default(),
        };
        client.push_referrer(&reference, &subject, &referrer).await.unwrap();
    }
    let mut victim = Node::start(QUIET).await;
    victim.pull(&image).await;
    victim
        .eventually("it is refused", |node| {
            node.metrics().contains("starling_profile_lookups_total{outcome=\"refused\"} 1")
        })
        .await;
    assert_eq!(planned(&victim), 0);
    let error = ask_profile(&victim.daemon.admin(), "registry.example/unknown:1").unwrap_err();
    assert!(error.to_string().contains("no pull of"), "{error}");
}
