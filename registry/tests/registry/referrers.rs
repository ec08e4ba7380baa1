//! Artifacts about an image: pushed and found, with and without a registry that keeps the list.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use estargz::Digest;
use registry::{Descriptor, Parsed, Reference, Referrer, RegistryClient, media_type};
use store::SourceErrorKind as Kind;
use testkit::registry::{Fault, On, RegistryOptions, TestRegistry};

use crate::origin::quick;

const TYPE: &str = "application/vnd.example.notes";

struct Image {
    registry: TestRegistry,
    client: Arc<RegistryClient>,
    reference: Reference,
    subject: Descriptor,
}

/// A registry with one image.
async fn image(no_referrers: bool) -> Image {
    let options = RegistryOptions { no_referrers, ..RegistryOptions::default() };
    let registry = TestRegistry::start(options).unwrap();
    let client = RegistryClient::new(quick()).unwrap();
    let reference: Reference = format!("{}/a/b:tag", registry.host()).parse().unwrap();
    let document = r#"{"schemaVersion":2,"layers":[]}"#;
    let digest = client
        .put_manifest(&reference, media_type::OCI_MANIFEST, Bytes::from_static(document.as_bytes()))
        .await
        .unwrap();
    let subject = Descriptor {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        digest,
        size: document.len() as u64,
        annotations: BTreeMap::new(),
        platform: None,
        other: serde_json::Map::new(),
    };
    Image { registry, client, reference, subject }
}

fn notes(kind: &str, text: &'static str) -> Referrer {
    Referrer {
        artifact_type: kind.to_owned(),
        media_type: "text/plain".to_owned(),
        payload: Bytes::from_static(text.as_bytes()),
        annotations: BTreeMap::from([("number".to_owned(), text.to_owned())]),
    }
}

impl Image {
    async fn push(&self, referrer: &Referrer) -> Digest {
        self.client.push_referrer(&self.reference, &self.subject, referrer).await.unwrap()
    }

    async fn listed(&self, kind: &str) -> Vec<Digest> {
        let found = self.client.referrers(&self.reference, &self.subject.digest, kind).await.unwrap();
        let mut digests: Vec<_> = found.iter().map(|descriptor| descriptor.digest).collect();
        digests.sort();
        digests
    }
}

#[tokio::test]
async fn what_was_pushed_is_found_with_and_without_the_registrys_own_list() {
    for no_referrers in [false, true] {
        let image = image(no_referrers).await;
        assert!(image.listed(TYPE).await.is_empty());
        let mut pushed = [image.push(&notes(TYPE, "one")).await, image.push(&notes(TYPE, "two")).await];
        image.push(&notes("application/vnd.example.other", "three")).await;
        // A second time changes nothing.
        assert_eq!(image.push(&notes(TYPE, "two")).await, pushed[1]);
        pushed.sort();
        assert_eq!(image.listed(TYPE).await, pushed, "{no_referrers}");
        assert_eq!(image.listed("application/vnd.example.other").await.len(), 1);

        let tag = image.subject.digest.to_string().replace(':', "-");
        assert_eq!(image.registry.manifest("a/b", &tag).is_some(), no_referrers);
        let found = image.client.referrers(&image.reference, &image.subject.digest, TYPE).await.unwrap();
        let one = found.iter().find(|descriptor| descriptor.annotations["number"] == "one").unwrap();
        let fetched = image.client.manifest(&image.reference.with_digest(one.digest)).await.unwrap();
        let Parsed::Manifest(artifact) = fetched.parse().unwrap() else { panic!("{fetched:?}") };
        assert_eq!(artifact.other["subject"]["digest"], image.subject.digest.to_string());
        let payload =
            image.client.fetch_blob(&image.reference, &artifact.layers[0].digest, 100).await.unwrap();
        assert_eq!(&payload[..], b"one");
    }
}

#[tokio::test]
async fn another_image_has_none_and_a_refusal_is_an_error() {
    let image = image(false).await;
    image.push(&notes(TYPE, "one")).await;
    let other = image.client.referrers(&image.reference, &Digest::of(b"other"), TYPE).await.unwrap();
    assert!(other.is_empty());
    image.registry.inject(On::Any, Fault::Status(403), None);
    let error = image.client.referrers(&image.reference, &image.subject.digest, TYPE).await.unwrap_err();
    assert_eq!(error.kind, Kind::Forbidden, "{error}");
}

#[tokio::test]
async fn what_is_no_list_counts_as_none() {
    let image = image(true).await;
    let tag = image.subject.digest.to_string().replace(':', "-");
    for document in ["[]", r#"{"schemaVersion":2,"manifests":7}"#, "<html>"] {
        image.registry.add_manifest("a/b", &tag, media_type::OCI_INDEX, document.to_owned());
        assert!(image.listed(TYPE).await.is_empty(), "{document}");
    }
}
