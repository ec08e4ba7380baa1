//! What registries and what stands before them do differently, each in one way.

use std::{process::Command, time::Duration};

use estargz::Digest;
use registry::{Reference, RegistryClient, RegistryConfig, Scheme, media_type};
use store::SourceErrorKind as Kind;
use testkit::registry::{RegistryOptions, TestRegistry};

use crate::origin::{Origin, Reply, Seen, content, file, quick, read};

/// `blob` in the answer to a range, as a multi-part answer with one part or with another one after it.
fn in_parts(seen: &Seen, blob: &[u8], another: bool) -> Reply {
    let Some(range) = seen.range(blob.len()) else { return Reply::ok(blob) };
    let head = format!("bytes {}-{}/{}", range.start, range.end - 1, blob.len());
    let mut body = format!("--x\r\nContent-Type: a/b\r\nContent-Range: {head}\r\n\r\n").into_bytes();
    body.extend_from_slice(&blob[range]);
    if another {
        let more = format!("\r\n--x\r\nContent-Range: bytes 0-9/{}\r\n\r\n", blob.len());
        body.extend_from_slice(more.as_bytes());
        body.extend_from_slice(&blob[..10]);
    }
    body.extend_from_slice(b"\r\n--x--\r\n");
    Reply::status(206).header("content-type", "multipart/byteranges; boundary=x").with_body(&body)
}

/// Both parts of a blob of 300,000 bytes come, with a request each.
async fn end_and_middle_are_read(origin: &Origin, blob: &[u8]) {
    let source = origin.blob(blob);
    let tail = source.read_tail(1000).await.unwrap();
    assert_eq!((tail.bytes.as_ref(), tail.blob_size), (&blob[299_000..], 300_000));
    assert_eq!(read(&source, 100_000..250_000).await.unwrap(), blob[100_000..250_000]);
    assert_eq!(origin.log().len(), 2);
}

#[tokio::test]
async fn the_first_part_of_an_answer_in_parts_is_read() {
    let blob = content(300_000);
    for another in [false, true] {
        for chunked in [false, true] {
            let served = blob.clone();
            let origin = Origin::start(move |seen| {
                let reply = in_parts(seen, &served, another);
                if chunked { reply.chunked() } else { reply }
            })
            .await;
            end_and_middle_are_read(&origin, &blob).await;
        }
    }
}

/// A part that holds something else, or says nothing, gives no byte.
#[tokio::test]
async fn a_wrong_part_of_an_answer_in_parts_is_an_error() {
    let blob = content(10_000);
    for head in ["Content-Range: bytes 2001-2999/10000", "Content-Range: bananas", "X: y", ""] {
        let served = blob.clone();
        let origin = Origin::start(move |seen| match seen.header("range") {
            Some("bytes=2000-2999") => {
                let body = format!("--x\r\n{head}\r\n\r\n{}", "0".repeat(20_000));
                let body = if head.is_empty() { "0".repeat(20_000) } else { body };
                let reply = Reply::status(206).header("content-type", "Multipart/byteranges; boundary=x");
                reply.with_body(body.as_bytes())
            }
            _ => Reply::blob(seen, &served),
        })
        .await;
        let error = read(&origin.blob(&blob), 2000..3000).await.unwrap_err();
        assert_eq!(error.kind, Kind::Protocol, "{head}: {error}");
    }
}

/// Dragonfly's proxy, in versions before June 2026.
#[tokio::test]
async fn an_answer_that_says_its_range_is_a_partial_one_whatever_its_status() {
    let blob = content(300_000);
    let served = blob.clone();
    let origin = Origin::start(move |seen| {
        let Some(range) = seen.range(served.len()) else { return Reply::ok(served.clone()) };
        let value = format!("bytes {}-{}/{}", range.start, range.end - 1, served.len());
        Reply::ok(&served[range]).header("content-range", &value)
    })
    .await;
    end_and_middle_are_read(&origin, &blob).await;
}

#[tokio::test]
async fn a_registry_is_reached_by_ipv6() {
    let blob = content(10_000);
    let served = blob.clone();
    let Some(origin) = Origin::start_v6(move |seen| Reply::blob(seen, &served)).await else {
        println!("skipped: this machine has no IPv6 loopback address");
        return;
    };
    assert!(origin.host.starts_with("[::1]:"));
    assert_eq!(read(&origin.blob(&blob), 5..9_000).await.unwrap(), blob[5..9_000]);
}

/// A storage service may refuse HEAD for an address that was signed for GET.
#[tokio::test]
async fn a_refused_head_means_that_a_blob_is_not_known_to_be_there() {
    for status in [403, 405] {
        let storage = Origin::start(move |_| Reply::status(status)).await;
        let target = format!("http://{}/stored?signature=x", storage.host);
        let origin = Origin::start(move |_| Reply::redirect(&target)).await;
        let client = RegistryClient::new(quick()).unwrap();
        let found = client.blob_exists(&origin.reference(), &Digest::of(b"x")).await.unwrap();
        assert_eq!((found, storage.log().len()), (None, 1));
        assert_eq!(storage.log()[0].method, "HEAD");
    }
}

/// HEAD is never needed for reading: a registry that refuses it is read all the same.
#[tokio::test]
async fn reading_takes_no_head() {
    let blob = content(10_000);
    let served = blob.clone();
    let origin = Origin::start(move |seen| match (seen.method.as_str(), seen.path.contains("/manifests/")) {
        ("HEAD", _) => Reply::status(405),
        (_, true) => Reply::ok("{}").header("content-type", media_type::OCI_MANIFEST),
        _ => Reply::blob(seen, &served),
    })
    .await;
    let client = RegistryClient::new(quick()).unwrap();
    client.manifest(&origin.reference()).await.unwrap();
    let source = client.blob(&origin.reference(), Digest::of(&blob));
    assert_eq!(source.read_tail(10).await.unwrap().blob_size, 10_000);
    assert_eq!(read(&source, 0..100).await.unwrap(), blob[..100]);
    assert!(origin.log().iter().all(|seen| seen.method == "GET"));
}

/// A server that offers both is spoken to in HTTP/1.1, so that each range has a connection of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_with_http_2_and_with_nothing_else_are_read() {
    for http2_only in [false, true] {
        let options = RegistryOptions { tls: true, http2_only, ..RegistryOptions::default() };
        let registry = TestRegistry::start(options).unwrap();
        let blob = content(100_000);
        let digest = registry.add_blob(blob.clone());
        let (_directory, path) = file(registry.authority().unwrap());
        let mut config = RegistryConfig { ca_files: vec![path], ..quick() };
        config.hosts.entry(registry.host()).or_default().scheme = Some(Scheme::Https);
        let reference: Reference = format!("{}/a/b", registry.host()).parse().unwrap();
        let source = RegistryClient::new(config).unwrap().blob(&reference, digest.parse().unwrap());
        for range in [0..100_000, 5..10, 99_990..100_000] {
            let expected = &blob[range.start as usize..range.end as usize];
            assert_eq!(read(&source, range).await.unwrap(), expected, "{http2_only}");
        }
    }
}

/// The variable that makes [`the_child_of_proxies_by_environment`] do something.
const CHILD: &str = "STARLING_TEST_PROXIED_IMAGE";

/// The environment belongs to a whole process: this test is run again in one with proxies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_are_taken_from_the_environment() {
    let blob = content(1000);
    let served = blob.clone();
    let proxy = Origin::start(move |seen| Reply::blob(seen, &served)).await;
    let here = {
        let served = blob.clone();
        Origin::start(move |seen| Reply::blob(seen, &served)).await
    };
    let run = |image: String| {
        let url = format!("http://{}", proxy.host);
        tokio::task::spawn_blocking(move || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "behaviours::the_child_of_proxies_by_environment", "--nocapture"]);
            command.env(CHILD, image).env("http_proxy", &url).env_remove("no_proxy").env_remove("NO_PROXY");
            command.status().unwrap().success()
        })
    };
    assert!(run("registry.example/a/b".to_owned()).await.unwrap());
    let asked = proxy.log();
    assert_eq!(asked.len(), 1);
    let digest = Digest::of(&blob);
    assert_eq!(asked[0].path, format!("http://registry.example/v2/a/b/blobs/{digest}"));
    // No proxy could reach this machine as we do.
    assert!(run(format!("{}/a/b", here.host)).await.unwrap());
    assert_eq!((proxy.log().len(), here.log().len()), (1, 1));
}

#[tokio::test]
async fn the_child_of_proxies_by_environment() {
    let Ok(image) = std::env::var(CHILD) else { return };
    let blob = content(1000);
    let reference: Reference = image.parse().unwrap();
    let mut config = quick().with_insecure_host(reference.host());
    config.retry.total = Duration::from_secs(3);
    let source = RegistryClient::new(config).unwrap().blob(&reference, Digest::of(&blob));
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
}
