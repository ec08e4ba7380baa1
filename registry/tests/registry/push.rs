//! Writing to registries, and reading back what was written.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use estargz::Digest;
use futures_util::stream;
use registry::{Mounted, RegistryClient, RegistryConfig, media_type};
use store::SourceErrorKind as Kind;

use crate::origin::{Origin, Reply, Seen, content, file, quick};

/// A registry that takes uploads as the specification says.
#[derive(Default)]
struct Taking {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    session: Vec<u8>,
    /// Uploads that are answered 503 first.
    failures: usize,
}

async fn taking(failures: usize) -> (Origin, Arc<Mutex<Taking>>) {
    let state = Arc::new(Mutex::new(Taking { failures, ..Taking::default() }));
    let shared = state.clone();
    let origin = Origin::start(move |seen| shared.lock().unwrap().answer(seen)).await;
    (origin, state)
}

impl Taking {
    fn answer(&mut self, seen: &Seen) -> Reply {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let query: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let name = path.rsplit_once('/').unwrap().1;
        match seen.method.as_str() {
            "HEAD" => match self.blobs.get(name) {
                Some(blob) => Reply::ok(blob.clone()),
                None => Reply::status(404),
            },
            "POST" if query.get("mount").is_some_and(|digest| self.blobs.contains_key(digest)) => {
                Reply::status(201)
            }
            "POST" => {
                self.session.clear();
                Reply::status(202).header("location", "/v2/a/b/blobs/uploads/session?state=1")
            }
            "PATCH" => {
                let from = self.session.len();
                let range = format!("{from}-{}", from + seen.body.len() - 1);
                if seen.header("content-range") != Some(&range) {
                    return Reply::status(416);
                }
                self.session.extend_from_slice(&seen.body);
                Reply::status(202).header("location", &format!("/v2/a/b/blobs/uploads/session?state={from}"))
            }
            "PUT" if path.contains("/manifests/") => {
                self.manifests.insert(name.to_owned(), seen.body.clone());
                Reply::status(201)
            }
            "PUT" if self.failures > 0 => {
                self.failures -= 1;
                Reply::status(503)
            }
            "PUT" => {
                self.session.extend_from_slice(&seen.body);
                let digest = query["digest"].clone();
                if Digest::of(&self.session).to_string() != digest || !query.contains_key("state") {
                    return Reply::status(400);
                }
                self.blobs.insert(digest, std::mem::take(&mut self.session));
                Reply::status(201)
            }
            "DELETE" => Reply::status(204),
            _ => Reply::status(405),
        }
    }
}

#[tokio::test]
async fn files_bytes_and_streams_are_uploaded() {
    let (origin, state) = taking(0).await;
    let config = RegistryConfig { upload_chunk: 100_000, ..quick() };
    let client = RegistryClient::new(config).unwrap();
    let reference = origin.reference();
    let large = content(1_234_567);
    let (_directory, path) = file(&large);
    client.upload_file(&reference, &Digest::of(&large), &path).await.unwrap();
    let small = client.upload_bytes(&reference, Bytes::from_static(b"small")).await.unwrap();
    for len in [0, 1, 99_999, 100_000, 100_001, 345_678] {
        let blob = content(len);
        let pieces: Vec<io::Result<Bytes>> =
            blob.chunks(7777).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let (digest, size) = client.upload_stream(&reference, stream::iter(pieces)).await.unwrap();
        assert_eq!((digest, size), (Digest::of(&blob), len as u64));
        assert_eq!(state.lock().unwrap().blobs[&digest.to_string()], blob);
    }
    let state = state.lock().unwrap();
    assert_eq!(state.blobs[&small.to_string()], b"small");
    assert_eq!(state.blobs[&Digest::of(&large).to_string()], large);
}

#[tokio::test]
async fn what_is_there_is_found_and_mounted() {
    let (origin, _) = taking(0).await;
    let client = RegistryClient::new(quick()).unwrap();
    let reference = origin.reference();
    let digest = Digest::of(b"blob");
    assert_eq!(client.blob_exists(&reference, &digest).await.unwrap(), None);
    assert_eq!(client.mount(&reference, &digest, "other/name").await.unwrap(), Mounted::No);
    client.upload_bytes(&reference, Bytes::from_static(b"blob")).await.unwrap();
    assert_eq!(client.blob_exists(&reference, &digest).await.unwrap(), Some(4));
    assert_eq!(client.mount(&reference, &digest, "other/name").await.unwrap(), Mounted::Yes);
    assert!(origin.log().iter().any(|seen| seen.method == "DELETE"), "the unused session is closed");
}

#[tokio::test]
async fn a_failed_upload_is_repeated_from_the_beginning() {
    let (origin, state) = taking(2).await;
    let client = RegistryClient::new(quick()).unwrap();
    let (_directory, path) = file(content(500_000));
    let digest = Digest::of(&content(500_000));
    client.upload_file(&origin.reference(), &digest, &path).await.unwrap();
    assert_eq!(state.lock().unwrap().blobs[&digest.to_string()], content(500_000));
    assert_eq!(origin.log().iter().filter(|seen| seen.method == "POST").count(), 3);
}

#[tokio::test]
async fn manifests_are_put_under_tags_and_digests() {
    let (origin, state) = taking(0).await;
    let client = RegistryClient::new(quick()).unwrap();
    let document = Bytes::from_static(b"{}");
    let digest = Digest::of(&document);
    let reference = origin.reference();
    assert_eq!(
        client.put_manifest(&reference, media_type::OCI_MANIFEST, document.clone()).await.unwrap(),
        digest
    );
    let by_digest = format!("{}/a/b@{digest}", origin.host).parse().unwrap();
    client.put_manifest(&by_digest, media_type::OCI_MANIFEST, document.clone()).await.unwrap();
    let state = state.lock().unwrap();
    assert!(state.manifests.contains_key("tag") && state.manifests.contains_key(&digest.to_string()));
    let put = origin.log().into_iter().find(|seen| seen.method == "PUT").unwrap();
    assert_eq!(put.header("content-type"), Some(media_type::OCI_MANIFEST));
}

#[tokio::test]
async fn a_manifest_that_does_not_fit_its_reference_is_not_sent() {
    let (origin, _) = taking(0).await;
    let client = RegistryClient::new(quick()).unwrap();
    let pinned = origin.reference().with_digest(Digest::of(b"other"));
    let error =
        client.put_manifest(&pinned, media_type::OCI_MANIFEST, Bytes::from_static(b"{}")).await.unwrap_err();
    assert_eq!((error.kind, origin.log().len()), (Kind::Protocol, 0));
}

#[tokio::test]
async fn uploads_are_not_sent_to_another_host() {
    let origin = Origin::start(|_| Reply::status(202).header("location", "http://192.0.2.1/upload")).await;
    let client = RegistryClient::new(quick()).unwrap();
    let error = client.upload_bytes(&origin.reference(), Bytes::from_static(b"x")).await.unwrap_err();
    assert!(error.kind == Kind::Protocol && error.message.contains("another host"), "{error}");
}
