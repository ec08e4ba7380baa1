//! Credentials from end to end: the real daemon, kubelet's half and containerd's half of a pull, a registry that asks for a
//! password. And that none of them shows anywhere.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "lazy/client.rs"]
#[allow(dead_code, reason = "shared with lazy.rs, which needs more of it")]
mod client;
#[path = "credentials/cluster.rs"]
mod cluster;
#[path = "credentials/cri.rs"]
mod cri;
#[path = "lazy/image.rs"]
#[allow(dead_code, reason = "shared with lazy.rs, which needs more of it")]
mod image;
#[path = "lazy/node.rs"]
#[allow(dead_code, reason = "shared with lazy.rs, which needs more of it")]
mod node;
#[path = "credentials/planted.rs"]
mod planted;
#[path = "credentials/private.rs"]
mod private;
#[path = "credentials/processes.rs"]
mod processes;
#[path = "credentials/told.rs"]
mod told;

use std::{fs, io::Read, os::unix::fs::PermissionsExt, path::Path};

use estargz::Digest;
use nix::sys::signal::Signal;
use testkit::{
    peers::containerd::Containerd as RealContainerd,
    registry::{Auth, RegistryOptions, TestRegistry},
    requires, skip_unless,
};

use self::{
    client::Prepared,
    cri::Containerd,
    image::{Image, Layer},
    node::{Node, ON_DEMAND},
};

fn registry(auth: Auth) -> TestRegistry {
    let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
    registry.set_auth(auth);
    registry
}

fn basic(password: &str) -> Auth {
    Auth::Basic { user: "me".to_owned(), password: password.to_owned() }
}

fn bearer(password: &str) -> Auth {
    Auth::Bearer {
        login: Some(("me".to_owned(), password.to_owned())),
        lifetime: std::time::Duration::from_secs(60),
        post: true,
        identity_token: None,
    }
}

/// An image of one layer, another one for each `seed`.
fn image(registry: &TestRegistry, seed: u64) -> Image {
    Image::push(registry, "app", vec![Layer::new(registry, seed, 3, 300_000)])
}

/// The daemon's configuration with a proxy on `socket`, and without anything of this machine's user.
fn proxied(directory: &Path, own_socket: bool) -> String {
    let directory = directory.display();
    let listen = if own_socket { format!("listen_path = \"{directory}/cri.sock\"\n") } else { String::new() };
    format!(
        "{ON_DEMAND}[credentials]\ndocker_config = \"{directory}/docker.json\"\n[cri_keychain]\nenable_keychain = true\n\
         image_service_path = \"{directory}/containerd.sock\"\n{listen}"
    )
}

/// The daemon's configuration with the password for `registry` in a file of `directory`.
fn password_file(directory: &Path, registry: &TestRegistry) -> String {
    format!(
        "{ON_DEMAND}[credentials]\ndocker_config = \"/nonexistent\"\n[credentials.hosts.\"{}\"]\nusername = \"me\"\n\
         password_file = \"{}/password\"\n",
        registry.host(),
        directory.display()
    )
}

async fn is_lazy(node: &mut Node, image: &Image) -> bool {
    matches!(node.prepare(&image.containerd_labels(0), "").await, Prepared::Lazy(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubelet_gives_with_a_pull_reads_the_layers_also_after_a_restart() {
    skip_unless!(requires::fuse());
    for (auth, own_socket) in [(basic("good"), false), (bearer("good"), true)] {
        let registry = registry(auth);
        let image = image(&registry, 1);
        let directory = tempfile::tempdir().unwrap();
        let containerd = Containerd::start(&directory.path().join("containerd.sock")).await;
        let mut node = Node::start(&proxied(directory.path(), own_socket)).await;
        let socket = if own_socket { directory.path().join("cri.sock") } else { node.daemon.address() };
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        // containerd asks for the layer before it answers the pull.
        let asking = containerd.during_a_pull({
            let (mut client, labels) = (node.client.clone(), image.containerd_labels(0));
            async move { matches!(client.prepare(&labels, "").await, Prepared::Lazy(_)) }
        });
        cri::pull(&socket, &image.reference, "me", "good").await.unwrap();
        assert!(asking.await.unwrap(), "{}", node.daemon.log());
        node.restart(Signal::SIGKILL).await;
        assert!(node.read(&image.layers[0]) == image.layers[0].files, "{}", node.daemon.log());
        // The image is removed, and so are its credentials.
        cri::remove(&socket, &image.reference).await.unwrap();
        node.restart(Signal::SIGTERM).await;
        assert!(fs::metadata(node.daemon.root().join("credentials/kept")).unwrap().len() < 64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_fails_gives_no_credentials() {
    skip_unless!(requires::fuse());
    let registry = registry(basic("good"));
    let image = image(&registry, 1);
    let directory = tempfile::tempdir().unwrap();
    let containerd = Containerd::start(&directory.path().join("containerd.sock")).await;
    let mut node = Node::start(&proxied(directory.path(), false)).await;
    containerd.refuse_pulls();
    let status = cri::pull(&node.daemon.address(), &image.reference, "me", "good").await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Internal);
    assert!(!is_lazy(&mut node, &image).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_password_needs_no_restart() {
    skip_unless!(requires::fuse());
    let registry = registry(basic("one"));
    let image = image(&registry, 1);
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::start(&password_file(directory.path(), &registry)).await;
    fs::write(directory.path().join("password"), "one\n").unwrap();
    assert!(is_lazy(&mut node, &image).await, "{}", node.daemon.log());
    fs::write(directory.path().join("password"), "two\n").unwrap();
    registry.set_auth(basic("two"));
    assert!(node.read(&image.layers[0]) == image.layers[0].files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_refused_reads_is_one_refresh() {
    skip_unless!(requires::fuse());
    for (one, two, token_requests) in [(basic("one"), basic("two"), 0), (bearer("one"), bearer("two"), 1)] {
        let registry = registry(one);
        let layer = Layer::new(&registry, 1, 64, 300_000);
        let image = Image::push(&registry, "app", vec![layer]);
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::start(&password_file(directory.path(), &registry)).await;
        fs::write(directory.path().join("password"), "one").unwrap();
        assert!(is_lazy(&mut node, &image).await, "{}", node.daemon.log());
        let refreshes = told::refreshes(&node);
        fs::write(directory.path().join("password"), "two").unwrap();
        registry.set_auth(two);
        registry.clear_requests();
        let (path, files) = (node.path(&image.layers[0]), &image.layers[0].files);
        std::thread::scope(|readers| {
            for (name, bytes) in files {
                let path = path.join(name);
                readers.spawn(move || assert!(fs::read(path).unwrap() == *bytes, "{name}"));
            }
        });
        let asked =
            registry.requests().into_iter().filter(|request| request.path.starts_with("/token")).count();
        assert_eq!((asked, told::refreshes(&node) - refreshes), (token_requests, 1), "{}", node.daemon.log());
    }
}

/// An image that containerd itself can unpack.
fn real_image(registry: &TestRegistry, name: &str) -> Image {
    let layer = Layer::new(registry, 7, 3, 300_000);
    let blob = registry.blob(&layer.blob.to_string()).unwrap();
    let mut archive = Vec::new();
    flate2::read::MultiGzDecoder::new(&blob[..]).read_to_end(&mut archive).unwrap();
    let diff = Digest::of(&archive).to_string();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [diff] }
    });
    Image::push_with(registry, name, &config.to_string(), vec![layer])
}

#[tokio::test(flavor = "multi_thread")]
async fn containerds_own_image_service_behind_the_proxy_pulls_a_private_image_lazily() {
    skip_unless!(requires::fuse());
    skip_unless!(requires::go());
    let registry = registry(bearer("good"));
    let image = real_image(&registry, "private");
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "{ON_DEMAND}[credentials]\ndocker_config = \"/nonexistent\"\n[cri_keychain]\nenable_keychain = true\n\
         image_service_path = \"{}/containerd.sock\"\n",
        directory.path().display()
    );
    let node = Node::start(&config).await;
    let plugin = node.daemon.plugin("starling");
    let mut containerd = RealContainerd::start_with_cri(directory.path(), &plugin).unwrap();
    let socket = node.daemon.address();
    let wrong = cri::pull(&socket, &image.reference, "me", "bad").await;
    assert!(wrong.is_err(), "{}", containerd.log());
    let pulled = cri::pull(&socket, &image.reference, "me", "good").await;
    assert!(pulled.is_ok(), "{pulled:?}\n{}", containerd.log());
    let status = node.layer(&image.layers[0]).expect("the layer is lazy");
    assert!(status.files.percent_present < 100.0, "{status:?}");
    assert!(node.read(&image.layers[0]) == image.layers[0].files, "{}", node.daemon.log());
    containerd.stop();
}
