//! Manifests and whole blobs, from registries and from directories.

use std::path::Path;

use estargz::Digest;
use futures_util::TryStreamExt;
use registry::{ImageSource, OciLayout, Parsed, Platform, RegistryClient, media_type, open_image};
use store::{Class, SourceErrorKind as Kind};

use crate::origin::{Origin, Reply, content, quick};

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux"}"#;

fn manifest(layer: &[u8]) -> String {
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": { "mediaType": media_type::OCI_CONFIG, "digest": Digest::of(CONFIG), "size": CONFIG.len() },
        "layers": [{ "mediaType": media_type::OCI_LAYER_GZIP, "digest": Digest::of(layer), "size": layer.len() }],
    })
    .to_string()
}

fn index(manifest: &str) -> String {
    let entry = |architecture: &str, digest: Digest| {
        serde_json::json!({ "mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": manifest.len(),
            "platform": { "os": "linux", "architecture": architecture } })
    };
    let manifests = [entry("other", Digest::of(b"")), entry("amd64", Digest::of(manifest.as_bytes()))];
    serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests })
        .to_string()
}

fn amd64() -> Platform {
    Platform::parse("linux/amd64").unwrap()
}

#[tokio::test]
async fn manifests_are_fetched_by_tag_and_checked() {
    let document = manifest(b"layer");
    let served = document.clone();
    let origin = Origin::start(move |_| {
        Reply::ok(served.clone())
            .header("content-type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8")
            .header("docker-content-digest", &Digest::of(served.as_bytes()).to_string())
    })
    .await;
    let client = RegistryClient::new(quick()).unwrap();
    let fetched = client.manifest(&origin.reference()).await.unwrap();
    assert_eq!((&fetched.bytes[..], fetched.digest), (document.as_bytes(), Digest::of(document.as_bytes())));
    assert_eq!(fetched.media_type, media_type::OCI_MANIFEST);
    assert!(matches!(fetched.parse().unwrap(), Parsed::Manifest(_)));
    let log = origin.log();
    assert_eq!(log[0].path, "/v2/a/b/manifests/tag");
    let accept = log[0].header("accept").unwrap();
    assert!(media_type::ALL_MANIFESTS.iter().all(|media_type| accept.contains(media_type)), "{accept}");
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let client = RegistryClient::new(quick()).unwrap();
    let origin = Origin::start(|_| Reply::ok("{}")).await;
    let pinned = origin.reference().with_digest(Digest::of(b"other"));
    assert_eq!(client.manifest(&pinned).await.unwrap_err().kind, Kind::Protocol);
    assert_eq!(origin.log().len(), 3);
    let origin =
        Origin::start(|_| Reply::ok("{}").header("docker-content-digest", &Digest::of(b"x").to_string()))
            .await;
    assert_eq!(client.manifest(&origin.reference()).await.unwrap_err().kind, Kind::Protocol);
}

#[tokio::test]
async fn answers_over_the_limit_are_refused() {
    let client = RegistryClient::new(quick()).unwrap();
    for chunked in [false, true] {
        let origin = Origin::start(move |_| {
            let reply = Reply::ok(vec![b' '; (4 << 20) + 1]);
            if chunked { reply.chunked() } else { reply }
        })
        .await;
        assert_eq!(client.manifest(&origin.reference()).await.unwrap_err().kind, Kind::Protocol);
        let blob = vec![b' '; (4 << 20) + 1];
        let digest = Digest::of(&blob);
        assert_eq!(
            client.fetch_blob(&origin.reference(), &digest, 4 << 20).await.unwrap_err().kind,
            Kind::Protocol
        );
        assert_eq!(client.fetch_blob(&origin.reference(), &digest, 5 << 20).await.unwrap(), blob);
    }
}

#[tokio::test]
async fn whole_blobs_are_checked() {
    let origin = Origin::start(|_| Reply::ok("something else")).await;
    let client = RegistryClient::new(quick()).unwrap();
    let error = client.fetch_blob(&origin.reference(), &Digest::of(b"x"), 100).await.unwrap_err();
    assert!(error.kind == Kind::Protocol && error.message.contains("digest"), "{error}");
}

#[tokio::test]
async fn the_platforms_manifest_is_found_through_the_index() {
    let (child, layer) = (manifest(b"layer"), b"layer");
    let parent = index(&child);
    let digest = Digest::of(child.as_bytes());
    let served = (parent.clone(), child.clone());
    let origin = Origin::start(move |seen| match seen.path.rsplit_once('/').unwrap().1 {
        "tag" => Reply::ok(served.0.clone()).header("content-type", media_type::OCI_INDEX),
        name if name == digest.to_string() => {
            Reply::ok(served.1.clone()).header("content-type", "application/json")
        }
        name if name == Digest::of(CONFIG).to_string() => Reply::ok(CONFIG),
        _ => Reply::status(404),
    })
    .await;
    let client = RegistryClient::new(quick()).unwrap();
    let image = open_image(&origin.reference().to_string(), &client).unwrap();
    let (fetched, manifest) = image.platform_manifest(&amd64()).await.unwrap();
    assert_eq!((fetched.digest, manifest.layers[0].digest), (digest, Digest::of(layer)));
    assert_eq!(image.fetch_blob(&manifest.config.digest, 1000).await.unwrap(), CONFIG);
    let error = image.platform_manifest(&Platform::parse("linux/s390x").unwrap()).await.unwrap_err();
    assert!(error.message.contains("linux/s390x") && error.message.contains("linux/amd64"), "{error}");
}

fn put(directory: &Path, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
    digest
}

fn layout(layer: &[u8], tags: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), CONFIG);
    put(directory.path(), layer);
    let document = manifest(layer);
    let digest = put(directory.path(), document.as_bytes());
    let manifests: Vec<_> = tags
        .iter()
        .map(|tag| {
            serde_json::json!({ "mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": document.len(),
                "annotations": { "org.opencontainers.image.ref.name": tag } })
        })
        .collect();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
    std::fs::write(directory.path().join("index.json"), index).unwrap();
    std::fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    directory
}

#[tokio::test]
async fn a_directory_is_read_like_a_registry() {
    let layer = content(700_000);
    let directory = layout(&layer, &["one", "two"]);
    let client = RegistryClient::new(quick()).unwrap();
    let image = open_image(&format!("oci:{}:two", directory.path().display()), &client).unwrap();
    let (fetched, manifest) = image.platform_manifest(&amd64()).await.unwrap();
    assert_eq!(image.fetch_blob(&manifest.config.digest, 1000).await.unwrap(), CONFIG);
    let blob = image.blob(manifest.layers[0].digest);
    let tail = blob.read_tail(100).await.unwrap();
    assert_eq!((tail.blob_size, &tail.bytes[..]), (700_000, &layer[699_900..]));
    assert_eq!(blob.read_tail(1 << 30).await.unwrap().bytes, layer);
    let pieces: Vec<_> =
        blob.read_range(10..699_999, Class::Demand).await.unwrap().try_collect().await.unwrap();
    assert_eq!(pieces.concat(), &layer[10..699_999]);
    assert_eq!(blob.read_range(0..700_001, Class::Demand).await.err().unwrap().kind, Kind::Protocol);
    let pinned = format!("oci:{}@{}", directory.path().display(), fetched.digest);
    assert_eq!(open_image(&pinned, &client).unwrap().manifest(None).await.unwrap().bytes, fetched.bytes);
}

#[tokio::test]
async fn a_directory_that_does_not_hold_what_is_asked_for_says_so() {
    let directory = layout(b"layer", &["one", "two"]);
    let name = format!("oci:{}", directory.path().display());
    let several = OciLayout::parse(&name).unwrap().manifest(None).await.unwrap_err();
    assert!(several.message.contains("several"), "{several}");
    let missing = OciLayout::parse(&format!("{name}:three")).unwrap().manifest(None).await.unwrap_err();
    assert_eq!(missing.kind, Kind::NotFound);
    let nothing = OciLayout::parse("oci:/nonexistent").unwrap().manifest(None).await.unwrap_err();
    assert_eq!(nothing.kind, Kind::NotFound);
    let only = layout(b"layer", &["one"]);
    assert!(OciLayout::new(only.path()).manifest(None).await.is_ok());
    let config = only.path().join("blobs/sha256").join(Digest::of(CONFIG).hex());
    std::fs::write(config, b"spoiled").unwrap();
    let spoiled = OciLayout::new(only.path()).fetch_blob(&Digest::of(CONFIG), 100).await.unwrap_err();
    assert_eq!(spoiled.kind, Kind::Protocol);
}

#[test]
fn names_of_directories_are_read_as_skopeo_reads_them() {
    let digest = Digest::of(b"x");
    let directory =
        |name: &str| OciLayout::parse(name).map(|layout| layout.directory().display().to_string());
    assert_eq!(directory("oci:/a/b").unwrap(), "/a/b");
    assert_eq!(directory("oci:/a/b:tag").unwrap(), "/a/b");
    assert_eq!(directory("oci:/a:b/c").unwrap(), "/a:b/c");
    assert_eq!(directory(&format!("oci:rel@{digest}")).unwrap(), "rel");
    for name in ["oci:", "oci::tag", "oci:/a:", "oci:/a@sha256:1", "/a"] {
        assert!(directory(name).is_err(), "{name}");
    }
}
