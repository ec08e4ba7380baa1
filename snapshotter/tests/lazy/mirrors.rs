//! Images of a registry that has a mirror, through the daemon.

use std::fs;

use testkit::{
    registry::{Fault, On, Peer, RegistryOptions, TestRegistry},
    requires, skip_unless,
};

use super::{
    image::{Image, Layer},
    node::{Node, ON_DEMAND},
    registry,
};

/// A registry, a mirror with the same image, and what tells the daemon of it.
struct Mirrored {
    origin: TestRegistry,
    mirror: TestRegistry,
    image: Image,
    _certs: tempfile::TempDir,
    config: String,
}

impl Mirrored {
    /// An image of `layers` layers, whose registry has `mirror` as containerd's files say it.
    fn new(layers: usize, mirror: impl FnOnce(&TestRegistry) -> TestRegistry, hosts_toml: &str) -> Self {
        let origin = registry();
        let mirror = mirror(&origin);
        let push = |registry: &TestRegistry| {
            let layers = (0..layers).map(|n| Layer::new(registry, n as u64, 2, 300_000)).collect();
            Image::push(registry, "app", layers)
        };
        let image = push(&origin);
        push(&mirror);
        let certs = tempfile::tempdir().unwrap();
        let directory = certs.path().join("_default");
        fs::create_dir(&directory).unwrap();
        let text = hosts_toml.replace("MIRROR", &mirror.host()).replace("ORIGIN", &origin.host());
        fs::write(directory.join("hosts.toml"), text).unwrap();
        let config =
            format!("{ON_DEMAND}[registry]\nconfig_path = {:?}\n", certs.path().display().to_string());
        Self { origin, mirror, image, _certs: certs, config }
    }

    /// The same with a mirror that behaves as registries do.
    fn plain(layers: usize) -> Self {
        Self::new(
            layers,
            |_| registry(),
            "[host.\"http://MIRROR\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        )
    }
}

/// The requests for manifests and blobs, and how they were answered.
fn answers(registry: &TestRegistry) -> Vec<(String, u16)> {
    let content = |path: &str| path.contains("/blobs/") || path.contains("/manifests/");
    let requests = registry.requests().into_iter().filter(|request| content(&request.path));
    requests.map(|request| (request.path, request.status)).collect()
}

/// The value of a metric of `host`.
fn metric(node: &Node, name: &str, host: &str) -> u64 {
    let metrics = node.metrics();
    let sample = format!("{name}{{host=\"{host}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&sample));
    line.unwrap_or_else(|| panic!("no {sample}in\n{metrics}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_from_the_mirror_and_the_rest_from_the_registry_when_that_is_gone() {
    skip_unless!(requires::fuse());
    let Mirrored { origin, mirror, image, config, _certs } = Mirrored::plain(2);
    let mut node = Node::start(&config).await;
    node.pull(&image).await;
    assert!(node.read(&image.layers[0]) == image.layers[0].files);
    // Only the registry itself has the capability to list what refers to an image.
    assert!(answers(&origin).is_empty());
    let namespace = format!("ns={}", origin.host().replace(':', "%3A"));
    assert!(mirror.requests().iter().all(|request| request.path.contains(&namespace)));
    drop(mirror);
    assert!(node.read(&image.layers[1]) == image.layers[1].files);
    assert!(origin.requests().iter().all(|request| !request.path.contains("ns=")));
    assert!(metric(&node, "starling_registry_requests_total", &origin.host()) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_of_a_mirror_reach_nobody_and_are_reported() {
    skip_unless!(requires::fuse());
    let Mirrored { origin, mirror, image, config, _certs } = Mirrored::plain(1);
    let mut node = Node::start(&config).await;
    node.pull(&image).await;
    mirror.inject(On::PlainRange, Fault::FlipBit(70_001), None);
    assert!(node.read(&image.layers[0]) == image.layers[0].files);
    assert!(metric(&node, "starling_registry_wrong_bytes_total", &mirror.host()) >= 1);
    assert_eq!(metric(&node, "starling_registry_wrong_bytes_total", &origin.host()), 0);
    let hosts = node.status().hosts.remove(0).hosts;
    let passed_over =
        hosts.iter().map(|host| (host.url.contains(&mirror.host()), host.passed_over.is_some()));
    assert_eq!(passed_over.collect::<Vec<_>>(), [(true, true), (false, false)], "{hosts:?}");
    if let Some(explained) = node.explain(&image) {
        assert!(explained.contains("it sent wrong bytes"), "{explained}");
    }
    let log = node.daemon.log();
    assert!(
        log.contains("a mirror sent wrong bytes and is left out") && log.contains(&mirror.host()),
        "{log}"
    );
}

/// Dragonfly's client and Spegel as they are set up for containerd.
#[tokio::test(flavor = "multi_thread")]
async fn peers_are_told_whose_content_is_meant() {
    skip_unless!(requires::fuse());
    let host = "[host.\"http://MIRROR\"]\ncapabilities = [\"pull\", \"resolve\"]\n";
    let header = "[host.\"http://MIRROR\".header]\nX-Dragonfly-Registry = \"http://ORIGIN\"\n";
    let start = |peer| TestRegistry::start(RegistryOptions { peer, ..RegistryOptions::default() }).unwrap();
    let spegel = |origin: &TestRegistry| start(Peer::Spegel { registry: origin.host() });
    let dragonfly =
        |origin: &TestRegistry| start(Peer::Dragonfly { registry: format!("http://{}", origin.host()) });
    for mirrored in [Mirrored::new(1, spegel, host), Mirrored::new(1, dragonfly, &format!("{host}{header}"))]
    {
        let Mirrored { origin, mirror, image, config, _certs } = mirrored;
        let mut node = Node::start(&config).await;
        node.pull(&image).await;
        assert!(node.read(&image.layers[0]) == image.layers[0].files);
        assert!(answers(&origin).is_empty());
        let answers = answers(&mirror);
        assert!(answers.len() > 1 && answers.iter().all(|(_, status)| *status < 300), "{answers:#?}");
    }
    // Not told, it refuses, and nobody notices.
    let Mirrored { origin, mirror, image, config, _certs } = Mirrored::new(1, dragonfly, host);
    let mut node = Node::start(&config).await;
    node.pull(&image).await;
    assert!(node.read(&image.layers[0]) == image.layers[0].files);
    assert!(answers(&mirror).iter().all(|(_, status)| *status == 400));
    assert!(!answers(&origin).is_empty());
}
