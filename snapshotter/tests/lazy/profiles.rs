//! What one start reads is fetched ahead at the next cold one: on this machine, and on others through the registry.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use estargz::Digest;
use nix::sys::signal::Signal;
use registry::{Reference, RegistryClient, RegistryConfig};
use snapshotter::{
    admin::ask_profile,
    profile::{self, Document},
};
use testkit::{
    registry::{Fault, On, RegistryOptions, Shaping, TestRegistry},
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

/// A layer with this host's files, and with links.
fn of_host(registry: &TestRegistry, files: &[(&str, Vec<u8>)], links: &[(&str, &str)]) -> Layer {
    let files: BTreeMap<_, _> = files.iter().map(|(name, data)| ((*name).to_owned(), data.clone())).collect();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in &files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data.as_slice()).unwrap();
    }
    for (name, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    }
    Layer::of_archive(registry, &tar.into_inner().unwrap(), files)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_entry_point_needs_is_fetched_when_nothing_else_is_known() {
    skip_unless!(requires::fuse());
    let host = |path: &str| fs::read(path).unwrap_or_default();
    let (program, loader) = (host("/usr/bin/true"), host("/lib64/ld-linux-x86-64.so.2"));
    let libc = host("/lib/x86_64-linux-gnu/libc.so.6");
    let elsewhere = program.is_empty() || libc.is_empty() || loader.is_empty();
    skip_unless!(elsewhere.then_some("this host's programs are not where Debian has them"));
    let registry = registry();
    let noise = |seed| Layer::new(&registry, seed, 1, 100_000).files["usr/file-0"].clone();
    let list = b"include ld.so.conf.d/*.conf\n".to_vec();
    let low = of_host(
        &registry,
        &[
            ("usr/lib64/ld-linux-x86-64.so.2", loader),
            ("opt/libs/libc.so.6", libc),
            ("etc/ld.so.conf", list),
            ("etc/ld.so.conf.d/own.conf", b"# ours\n/opt/libs\n".to_vec()),
            ("usr/bin/tool", noise(400)),
            ("usr/share/low", noise(401)),
        ],
        &[("lib64", "usr/lib64")],
    );
    let high = of_host(
        &registry,
        &[
            ("usr/bin/tool", program),
            ("srv/entry", b"#!/usr/bin/env -S A=1 tool\n".to_vec()),
            ("usr/bin/env-real", noise(402)),
            ("usr/share/high", noise(403)),
        ],
        &[("start", "../srv/./entry"), ("usr/bin/env", "env-real")],
    );
    let config = r#"{"config":{"Entrypoint":["start"],"Env":["PATH=/nowhere:/:/usr/bin"]}}"#;
    let image = Image::push_with(&registry, "entry", config, vec![low, high]);
    let mut node = Node::start(QUIET).await;
    node.pull(&image).await;
    let complete = |node: &Node, n: usize, path: &str| {
        let name = image.layers[n].files[path].clone();
        let before = misses(node);
        fs::read(node.path(&image.layers[n]).join(path)).unwrap() == name && misses(node) == before
    };
    let needed: u64 = [
        (0, "usr/lib64/ld-linux-x86-64.so.2"),
        (0, "opt/libs/libc.so.6"),
        (1, "usr/bin/tool"),
        (1, "srv/entry"),
    ]
    .iter()
    .map(|(layer, path)| image.layers[*layer].files[*path].len() as u64)
    .sum();
    let present =
        |node: &Node| -> u64 { node.status().layers.iter().map(|layer| layer.files.bytes_present).sum() };
    node.eventually("the entry point's files are here", |node| present(node) >= needed).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    for path in ["usr/lib64/ld-linux-x86-64.so.2", "opt/libs/libc.so.6", "etc/ld.so.conf"] {
        assert!(complete(&node, 0, path), "{path}");
    }
    for path in ["usr/bin/tool", "srv/entry", "usr/bin/env-real"] {
        assert!(complete(&node, 1, path), "{path}");
    }
    assert!(!complete(&node, 0, "usr/bin/tool"), "it is hidden by the layer above");
    assert!(!complete(&node, 0, "usr/share/low") && !complete(&node, 1, "usr/share/high"));
}

/// Reads files of the lowest layer as a container of the image `top` does, and ends it.
async fn read_base(node: &mut Node, image: &Image, top: &str, key: &str, numbers: &[usize]) {
    let root = node.mount(key, top).await;
    for number in numbers {
        let path = format!("usr/file-{number}");
        assert!(fs::read(root.join(&path)).unwrap() == image.layers[0].files[&path], "{path}");
    }
    nix::mount::umount(&node.directory.path().join(key)).unwrap();
    node.remove(key).await;
}

async fn remove_all(node: &mut Node, names: &[String]) {
    for name in names.iter().rev() {
        node.remove(name).await;
    }
    node.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_with_a_layer_in_common_have_plans_of_their_own() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let base = Layer::new(&registry, 500, 40, 150_000);
    let with = |name: &str, seed| {
        Image::push(&registry, name, vec![base.clone(), Layer::new(&registry, seed, 1, 100)])
    };
    let (one, two) = (with("one", 501), with("two", 502));
    let (of_one, of_two) = ([30, 5, 12], [7, 35, 21, 14]);
    let mut node = Node::start(QUIET).await;
    for (image, key, numbers) in [(&one, "one", &of_one[..]), (&two, "two", &of_two[..])] {
        let names = node.pull(image).await;
        read_base(&mut node, image, &names[1], key, numbers).await;
        remove_all(&mut node, &names).await;
    }
    assert!(node.status().layers.is_empty());

    let file = 150_000;
    let names = node.pull(&one).await;
    let whole = |node: &Node| planned(node) / file;
    node.eventually("one's plan is followed", |node| whole(node) == of_one.len() as u64).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(whole(&node), of_one.len() as u64, "nothing that only the other image reads");
    assert_eq!(document(&node, &one).files(), of_one.map(|n| format!("usr/file-{n}")));

    // The other image's Prepare for the layer they share never comes: it is there.
    let others = node.pull(&two).await;
    assert_eq!(others[0], names[0]);
    node.eventually("two's plan is followed", |node| whole(node) == 7).await;
    let before = misses(&node);
    read_base(&mut node, &two, &others[1], "second", &of_two).await;
    assert_eq!(misses(&node), before);
    assert_eq!(document(&node, &two).files(), of_two.map(|n| format!("usr/file-{n}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_that_hangs_delays_no_prepare() {
    skip_unless!(requires::fuse());
    let registry = registry();
    for no_referrers in [false, true] {
        registry.set_no_referrers(no_referrers);
        let image = image(&registry, &format!("slow-{no_referrers}"), 600 + 10 * u64::from(no_referrers));
        registry.inject(On::Referrers, Fault::Stall, None);
        registry.clear_requests();
        let mut node = Node::start(QUIET).await;
        let began = Instant::now();
        let names = node.pull(&image).await;
        start(&mut node, &image, "first", &names[1]).await;
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        let asked = |request: &testkit::registry::RequestRecord| {
            request.path.contains("/referrers/") || request.path.contains("/manifests/sha256-")
        };
        node.eventually("it was looked for", |_| registry.requests().iter().any(asked)).await;
        registry.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_are_found_where_the_loaders_cache_says() {
    skip_unless!(requires::fuse());
    let host = |path: &str| fs::read(path).unwrap_or_default();
    let (program, cache) = (host("/usr/bin/true"), host("/etc/ld.so.cache"));
    let libc = host("/lib/x86_64-linux-gnu/libc.so.6");
    let elsewhere = program.is_empty() || libc.is_empty() || cache.is_empty();
    skip_unless!(elsewhere.then_some("this host's programs are not where Debian has them"));
    let registry = registry();
    // The same bytes under another name of the same length, where nobody looks without the cache.
    let spelled = String::from_utf8_lossy(&cache).contains("/lib/x86_64-linux-gnu/libc.so.6");
    skip_unless!((!spelled).then_some("this host's cache names its libraries otherwise"));
    let moved = replaced(&cache, b"/lib/x86_64-linux-gnu/", b"/opt/x86_64-linux-gnu/");
    let low =
        of_host(&registry, &[("opt/x86_64-linux-gnu/libc.so.6", libc), ("etc/ld.so.cache", moved)], &[]);
    let high = of_host(&registry, &[("usr/bin/tool", program)], &[("tool", "usr/bin/tool")]);
    let image = Image::push_with(&registry, "cached", r#"{"config":{"Cmd":["/tool"]}}"#, vec![low, high]);
    let mut node = Node::start(QUIET).await;
    node.pull(&image).await;
    let all: u64 =
        image.layers.iter().flat_map(|layer| layer.files.values()).map(|file| file.len() as u64).sum();
    let present =
        |node: &Node| -> u64 { node.status().layers.iter().map(|layer| layer.files.bytes_present).sum() };
    node.eventually("program, cache and library are here", |node| present(node) == all).await;
}

/// `bytes` with `new` for each `old`, which is as long.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(old.len()) {
        if bytes[at..].starts_with(old) {
            bytes[at..at + new.len()].copy_from_slice(new);
        }
    }
    bytes
}
