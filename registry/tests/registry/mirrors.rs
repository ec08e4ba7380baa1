//! Mirrors: which host is asked, what it is told, and what happens when it does not do well.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use estargz::Digest;
use registry::{HostConfig, Mirror, Reference, RegistryClient, RegistryConfig, Standing, media_type};
use store::SourceErrorKind as Kind;

use crate::origin::{Cut, Origin, Reply, Seen, content, quick, read};

/// A `certs.d` for a test.
pub(crate) struct CertsD(tempfile::TempDir);

impl CertsD {
    /// What is said of the registry `host`.
    pub(crate) fn new(host: &str, hosts_toml: &str) -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        root.says(host, hosts_toml);
        root
    }

    pub(crate) fn says(&self, host: &str, hosts_toml: &str) {
        self.put(host, "hosts.toml", hosts_toml);
    }

    pub(crate) fn put(&self, host: &str, file: &str, text: &str) {
        let directory = self.0.path().join(host.replace(':', "_") + "_");
        fs::create_dir_all(&directory).unwrap();
        // In one step: a reader must not see half of it.
        let new = directory.join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, directory.join(file)).unwrap();
    }

    pub(crate) fn config(&self) -> RegistryConfig {
        RegistryConfig {
            host_directories: vec![self.0.path().to_owned()],
            hosts_recheck: Duration::ZERO,
            host_patience: Duration::from_millis(400),
            ..quick()
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A server that has this blob and nothing else.
async fn serving(blob: &[u8]) -> Origin {
    let blob = blob.to_vec();
    Origin::start(move |seen| serve(seen, &blob)).await
}

fn serve(seen: &Seen, blob: &[u8]) -> Reply {
    let path = seen.path.split('?').next().unwrap_or_default();
    match path.ends_with(&Digest::of(blob).to_string()) {
        true => Reply::blob(seen, blob),
        false => Reply::status(404),
    }
}

/// `origin` with `mirror` in front of it.
fn mirrored(origin: &Origin, mirror: &Origin) -> CertsD {
    CertsD::new(&origin.host, &format!("[host.\"http://{}\"]", mirror.host))
}

fn paths(origin: &Origin) -> Vec<String> {
    origin.log().into_iter().map(|seen| seen.path).collect()
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_told_which_registry_is_meant() {
    let blob = content(300_000);
    let (origin, mirror) = (serving(&blob).await, serving(&blob).await);
    let certs = mirrored(&origin, &mirror);
    let source = origin.blob_with(certs.config(), &blob);
    assert_eq!(source.read_tail(1000).await.unwrap().bytes, blob[299_000..]);
    assert_eq!(read(&source, 5..200_000).await.unwrap(), blob[5..200_000]);
    assert_eq!(origin.log().len(), 0);
    let namespace = origin.host.replace(':', "%3A");
    let path = format!("/v2/a/b/blobs/{}?ns={namespace}", Digest::of(&blob));
    assert_eq!(paths(&mirror), [path.clone(), path]);
}

/// As Spegel: whoever does not say which registry is meant is sent away, and what no peer has is not found.
#[tokio::test]
async fn a_peer_that_does_not_have_a_blob_is_not_asked_again_for_each_range_of_it() {
    let (here, there) = (content(100_000), content(50_000));
    let both = (here.clone(), there.clone());
    let origin = Origin::start(move |seen| match serve(seen, &both.0) {
        reply if reply.is_ok() => reply,
        _ => serve(seen, &both.1),
    })
    .await;
    let namespace = format!("ns={}", origin.host.replace(':', "%3A"));
    let held = here.clone();
    let mirror = Origin::start(move |seen| match seen.path.split_once('?') {
        Some((_, query)) if query == namespace => serve(seen, &held),
        _ => Reply::status(400),
    })
    .await;
    let certs = mirrored(&origin, &mirror);
    let client = RegistryClient::new(certs.config()).unwrap();
    let at_peer = client.blob(&origin.reference(), Digest::of(&here));
    assert_eq!(read(&at_peer, 0..100_000).await.unwrap(), here);
    assert_eq!((mirror.log().len(), origin.log().len()), (1, 0));
    let elsewhere = client.blob(&origin.reference(), Digest::of(&there));
    for start in (0..50_000).step_by(10_000) {
        let range = start..start + 10_000;
        assert_eq!(read(&elsewhere, range.clone()).await.unwrap(), there[start as usize..][..10_000]);
    }
    assert_eq!((mirror.log().len(), origin.log().len()), (2, 5));
    assert_eq!(read(&at_peer, 5..10).await.unwrap(), here[5..10], "the peer still has this one");
    assert_eq!((mirror.log().len(), origin.log().len()), (3, 5));
}

/// As Dragonfly: its proxy wants a header that names the registry. The header is for the proxy alone, also where that
/// sends us on.
#[tokio::test]
async fn a_mirrors_headers_go_to_the_mirror_only() {
    let blob = content(100_000);
    let (origin, storage) = (serving(&blob).await, serving(&blob).await);
    let (wanted, target) = (format!("http://{}", origin.host), storage.host.clone());
    let digest = Digest::of(&blob);
    let mirror = Origin::start(move |seen| match seen.header("x-dragonfly-registry") {
        Some(registry) if registry == wanted => {
            Reply::redirect(&format!("http://{target}/stored/{digest}?signature=x"))
        }
        _ => Reply::status(400),
    })
    .await;
    let text = format!(
        "[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
         [host.\"http://{}\".header]\nX-Dragonfly-Registry = \"http://{}\"",
        mirror.host, mirror.host, origin.host
    );
    let certs = CertsD::new(&origin.host, &text);
    let source = origin.blob_with(certs.config(), &blob);
    assert_eq!(read(&source, 0..100_000).await.unwrap(), blob);
    assert_eq!((mirror.log().len(), storage.log().len(), origin.log().len()), (1, 1, 0));
    assert_eq!(storage.log()[0].header("x-dragonfly-registry"), None);
    certs.says(&origin.host, "");
    assert_eq!(read(&source, 0..10).await.unwrap(), blob[..10]);
    assert_eq!(origin.log()[0].header("x-dragonfly-registry"), None);
}

#[tokio::test]
async fn a_mirror_that_is_down_is_tried_again_after_a_while() {
    let blob = content(100_000);
    let down = Arc::new(AtomicBool::new(true));
    let (served, is_down) = (blob.clone(), down.clone());
    let mirror = Origin::start(move |seen| match is_down.load(Relaxed) {
        true => Reply::status(503),
        false => serve(seen, &served),
    })
    .await;
    let origin = serving(&blob).await;
    let certs = mirrored(&origin, &mirror);
    let config = RegistryConfig { host_penalty: Duration::from_secs(2), ..certs.config() };
    let source = origin.blob_with(config, &blob);
    for _ in 0..3 {
        assert_eq!(read(&source, 0..10).await.unwrap(), blob[..10]);
    }
    assert_eq!((mirror.log().len(), origin.log().len()), (1, 3));
    down.store(false, Relaxed);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(read(&source, 0..10).await.unwrap(), blob[..10]);
    assert_eq!((mirror.log().len(), origin.log().len()), (2, 3));
}

#[tokio::test]
async fn nobody_waits_long_for_a_mirror_that_hangs_or_is_not_there() {
    let blob = content(100_000);
    let origin = serving(&blob).await;
    let hanging = Origin::start(|_| Reply::ok("").after(Duration::from_secs(60))).await;
    let nowhere = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for mirror in [hanging.host.clone(), nowhere] {
        let certs = CertsD::new(&origin.host, &format!("[host.\"http://{mirror}\"]"));
        let source = origin.blob_with(certs.config(), &blob);
        let began = Instant::now();
        assert_eq!(source.read_tail(10).await.unwrap().bytes, blob[99_990..], "{mirror}");
        assert_eq!(read(&source, 0..50_000).await.unwrap(), blob[..50_000]);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
    assert_eq!((hanging.log().len(), origin.log().len()), (1, 4));
}

#[tokio::test]
async fn the_origin_goes_on_at_the_byte_where_a_mirror_broke_off() {
    let blob = content(300_000);
    let origin = serving(&blob).await;
    for how in [Cut::Close, Cut::Stall] {
        let served = blob.clone();
        let mirror = Origin::start(move |seen| serve(seen, &served).cut(100_000, how)).await;
        let certs = mirrored(&origin, &mirror);
        let config = RegistryConfig { idle_timeout: Duration::from_millis(500), ..certs.config() };
        let before = origin.log().len();
        assert_eq!(read(&origin.blob_with(config, &blob), 0..300_000).await.unwrap(), blob, "{how:?}");
        let log = origin.log().split_off(before);
        let ranges: Vec<_> = log.iter().map(|seen| seen.header("range").unwrap_or_default()).collect();
        assert_eq!(ranges, ["bytes=100000-299999"], "{how:?}");
    }
}

#[tokio::test]
async fn a_mirror_that_sends_wrong_bytes_is_left_out_and_counted() {
    let blob = content(100_000);
    let origin = serving(&blob).await;
    let (digest, wrong) = (Digest::of(&blob), vec![7; 100_000]);
    let lying = wrong.clone();
    let mirror = Origin::start(move |seen| match seen.path.contains(&digest.to_string()) {
        true => Reply::blob(seen, &lying),
        false => Reply::status(404),
    })
    .await;
    let certs = mirrored(&origin, &mirror);
    let client = RegistryClient::new(certs.config()).unwrap();
    let source = client.blob(&origin.reference(), Digest::of(&blob));
    assert_eq!(read(&source, 0..50_000).await.unwrap(), wrong[..50_000]);
    // Whoever knows what should be there has seen it.
    source.distrust_range(20_000..30_000);
    assert_eq!(read(&source, 0..50_000).await.unwrap(), blob[..50_000]);
    let other = client.blob(&origin.reference(), Digest::of(b"another"));
    assert_eq!(read(&other, 0..1).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(mirror.log().len(), 1, "left out for other blobs too");
    let stats = client.stats();
    let of = |name: &str| stats.iter().find(|host| host.host == name).unwrap().wrong_bytes;
    assert_eq!((of(&mirror.host), of(&origin.host)), (1, 0));
    let hosts = client.hosts().remove(0).hosts;
    let standings: Vec<_> = hosts.iter().map(|host| host.standing).collect();
    assert_eq!(standings, [Standing::LeftOut, Standing::InTurn], "{hosts:?}");
}

#[tokio::test]
async fn whole_blobs_and_manifests_of_a_liar_come_from_the_origin() {
    let blob = content(1000);
    let served = blob.clone();
    let script = move |seen: &Seen| match seen.path.contains("/manifests/") {
        true => Reply::ok("{}").header("content-type", media_type::OCI_MANIFEST),
        false => serve(seen, &served),
    };
    let origin = Origin::start(script).await;
    let manifest = origin.reference().with_digest(Digest::of(b"{}"));
    for whole in [true, false] {
        let liar = Origin::start(|_| Reply::ok("{ }")).await;
        let certs = mirrored(&origin, &liar);
        let client = RegistryClient::new(certs.config()).unwrap();
        if whole {
            let got = client.fetch_blob(&origin.reference(), &Digest::of(&blob), 5000).await.unwrap();
            assert_eq!(got, blob);
        } else {
            assert_eq!(client.manifest(&manifest).await.unwrap().bytes, "{}");
        }
        assert_eq!(liar.log().len(), 1);
        let stats = client.stats();
        assert_eq!(stats.iter().map(|host| host.wrong_bytes).sum::<u64>(), 1);
    }
}

/// A mirror that lies about a blob's size has not spoilt it for the registry itself.
#[tokio::test]
async fn the_origin_is_right_about_a_blobs_size() {
    let blob = content(100_000);
    let origin = serving(&blob).await;
    let mirror = Origin::start(|seen| match seen.header("range") {
        Some("bytes=-1000") => Reply::part(&content(70_000), 69_000..70_000),
        _ => Reply::status(503),
    })
    .await;
    let certs = mirrored(&origin, &mirror);
    let source = origin.blob_with(certs.config(), &blob);
    assert_eq!(source.read_tail(1000).await.unwrap().blob_size, 70_000);
    assert_eq!(read(&source, 0..60_000).await.unwrap(), blob[..60_000]);
    assert_eq!(source.read_tail(1000).await.unwrap().bytes, blob[99_000..]);
}

#[tokio::test]
async fn a_mirror_that_does_not_serve_ranges_is_passed_over() {
    let blob = content(2 << 20);
    let (origin, whole) = (serving(&blob).await, blob.clone());
    let mirror = Origin::start(move |_| Reply::ok(whole.clone())).await;
    let certs = mirrored(&origin, &mirror);
    let source = origin.blob_with(certs.config(), &blob);
    assert_eq!(source.read_tail(1000).await.unwrap().bytes, blob[blob.len() - 1000..]);
    let asked = mirror.log().len();
    assert_eq!(read(&source, 1_000_000..1_000_100).await.unwrap(), blob[1_000_000..1_000_100]);
    assert_eq!(mirror.log().len(), asked);
}

#[tokio::test]
async fn capabilities_decide_who_is_asked_for_what() {
    let script = |seen: &Seen| match (seen.method.as_str(), seen.path.contains("/manifests/")) {
        ("GET", true) => Reply::ok("{}").header("content-type", media_type::OCI_MANIFEST),
        ("PUT", _) => Reply::status(201),
        _ => Reply::status(404),
    };
    let (origin, puller, pusher) =
        (Origin::start(script).await, Origin::start(script).await, Origin::start(script).await);
    let certs = CertsD::new(
        &origin.host,
        &format!(
            "capabilities = [\"pull\", \"resolve\"]\n\
             [host.\"http://{}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{}\"]\ncapabilities = [\"push\"]",
            puller.host, pusher.host
        ),
    );
    // A registry that is not named in the file has all capabilities, whatever the file says.
    let client = RegistryClient::new(certs.config()).unwrap();
    let tag = origin.reference();
    client.manifest(&tag).await.unwrap();
    assert_eq!((puller.log().len(), pusher.log().len(), origin.log().len()), (0, 0, 1));
    client.manifest(&tag.with_digest(Digest::of(b"{}"))).await.unwrap();
    assert_eq!((puller.log().len(), pusher.log().len(), origin.log().len()), (1, 0, 1));
    client.put_manifest(&tag, media_type::OCI_MANIFEST, "{}".into()).await.unwrap();
    assert_eq!((puller.log().len(), pusher.log().len(), origin.log().len()), (1, 1, 1));
    certs.says(&origin.host, &format!("server = \"http://{}\"\ncapabilities = [\"push\"]", origin.host));
    let error = client.manifest(&tag).await.unwrap_err();
    assert!(error.kind == Kind::NotFound && error.message.contains("hosts.toml"), "{error}");
}

#[tokio::test]
async fn changes_of_files_count_at_once_and_broken_ones_as_containerd_has_it() {
    let blob = content(100_000);
    let (origin, one, two) = (serving(&blob).await, serving(&blob).await, serving(&blob).await);
    let certs = mirrored(&origin, &one);
    let source = origin.blob_with(certs.config(), &blob);
    let asked = || [one.log().len(), two.log().len(), origin.log().len()];
    let mut expected = [1, 0, 0];
    read(&source, 0..10).await.unwrap();
    assert_eq!(asked(), expected);
    for (text, who) in [
        (format!("[host.\"http://{}\"]\n[host.\"http://{}\"]", two.host, one.host), 1),
        (format!("[host.\"http://{}\"]", one.host), 0),
        // The registry itself: the certificate files beside a broken file say nothing.
        ("server = 3".to_owned(), 2),
        (format!("server = \"http://{}\"", two.host), 1),
    ] {
        certs.says(&origin.host, &text);
        read(&source, 0..10).await.unwrap();
        expected[who] += 1;
        assert_eq!(asked(), expected, "{text}");
    }
    fs::remove_dir_all(certs.path()).unwrap();
    read(&source, 0..10).await.unwrap();
    expected[2] += 1;
    assert_eq!(asked(), expected);
}

/// Tokens and experience with hosts that stay the same outlive a change of the others.
#[tokio::test]
async fn a_change_of_one_host_leaves_the_others_alone() {
    let blob = content(100_000);
    let failing = Origin::start(|_| Reply::status(503)).await;
    let origin = serving(&blob).await;
    let certs = mirrored(&origin, &failing);
    let source = origin.blob_with(certs.config(), &blob);
    read(&source, 0..10).await.unwrap();
    let text = format!("[host.\"http://{}\"]\n[host.\"http://127.0.0.1:1\"]", failing.host);
    certs.says(&origin.host, &text);
    read(&source, 0..10).await.unwrap();
    assert_eq!(failing.log().len(), 1);
}

#[tokio::test]
async fn a_path_of_its_own_is_used_as_it_stands() {
    let blob = content(1000);
    let (origin, mirror) = (serving(&blob).await, serving(&blob).await);
    for (address, exact, path) in
        [("/proxy/hub", false, "/proxy/hub/v2"), ("/proxy/hub", true, "/proxy/hub"), ("", true, "")]
    {
        let text = format!("[host.\"http://{}{address}\"]\noverride_path = {exact}", mirror.host);
        let certs = CertsD::new(&origin.host, &text);
        read(&origin.blob_with(certs.config(), &blob), 0..10).await.unwrap();
        let last = mirror.log().pop().unwrap().path;
        assert!(last.starts_with(&format!("{path}/a/b/blobs/sha256:")), "{last}");
    }
    assert_eq!(origin.log().len(), 0);
}

#[tokio::test]
async fn mirrors_of_our_own_configuration_work_the_same() {
    let blob = content(1000);
    let origin = serving(&blob).await;
    let mirror = Origin::start(|_| Reply::status(500).after(Duration::from_secs(60))).await;
    let mut config = RegistryConfig { idle_timeout: Duration::from_secs(30), ..quick() };
    let settings = Mirror {
        host: mirror.host.clone(),
        headers: vec![("x-key".into(), "planted".into())],
        silence: Some(Duration::from_millis(200)),
        ..Mirror::default()
    };
    config.hosts.insert(origin.host.clone(), HostConfig { mirrors: vec![settings], ..HostConfig::default() });
    let began = Instant::now();
    read(&origin.blob_with(config, &blob), 0..10).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(mirror.log()[0].header("x-key"), Some("planted"));
    assert_eq!(origin.log()[0].header("x-key"), None);
}

#[tokio::test]
async fn mirrors_of_docker_serve_docker_io() {
    let blob = content(1000);
    let mirror = serving(&blob).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daemon.json");
    fs::write(&path, format!("{{\"registry-mirrors\": [\"http://{}/\"]}}", mirror.host)).unwrap();
    let config = RegistryConfig { docker_daemon: Some(path), ..quick() };
    let reference: Reference = "alpine".parse().unwrap();
    let source = RegistryClient::new(config).unwrap().blob(&reference, Digest::of(&blob));
    read(&source, 0..10).await.unwrap();
    let path = format!("/v2/library/alpine/blobs/{}?ns=docker.io", Digest::of(&blob));
    assert_eq!(paths(&mirror), [path]);
}

#[tokio::test]
async fn a_mirror_has_tokens_and_headers_of_its_own() {
    let blob = content(1000);
    let (origin, served) = (serving(&blob).await, blob.clone());
    let mirror = Origin::start_with_host(move |host| {
        let host = host.to_owned();
        Box::new(move |seen| match (seen.path.starts_with("/token"), seen.header("authorization")) {
            (true, _) => Reply::ok("{\"token\": \"of-the-mirror\"}"),
            (_, Some("Bearer of-the-mirror")) => serve(seen, &served),
            _ => Reply::bearer(&host),
        })
    })
    .await;
    let text = format!("[host.\"http://{}\".header]\nx-key = \"for-the-mirror\"", mirror.host);
    let certs = CertsD::new(&origin.host, &text);
    let source = origin.blob_with(certs.config(), &blob);
    read(&source, 0..10).await.unwrap();
    read(&source, 10..20).await.unwrap();
    assert_eq!(mirror.count("/token"), 1);
    assert!(mirror.log().iter().all(|seen| seen.header("x-key") == Some("for-the-mirror")));
    certs.says(&origin.host, "");
    read(&source, 0..10).await.unwrap();
    assert_eq!((origin.log()[0].header("authorization"), origin.log()[0].header("x-key")), (None, None));
}
