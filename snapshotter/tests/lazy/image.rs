//! Images for the tests: each layer an eStargz blob of a few files, with a manifest that vouches for it.

use std::{collections::BTreeMap, num::NonZeroU64};

use estargz::{
    Digest,
    write::{Options, build},
};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use testkit::{blob::Finished, registry::TestRegistry};

const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";

/// A layer, as it is in the registry.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) blob: Digest,
    pub(crate) toc: Digest,
    pub(crate) size: u64,
    /// The files by their path.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

/// An image, as it is in the registry.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) reference: String,
    pub(crate) manifest: Digest,
    pub(crate) layers: Vec<Layer>,
}

/// The labels that a client sends for a layer.
pub(crate) type Labels = std::collections::HashMap<String, String>;

// === impl Layer ===

impl Layer {
    /// A layer of `files` files of `len` bytes, different for each `seed`. Random bytes do not compress.
    pub(crate) fn new(registry: &TestRegistry, seed: u64, files: usize, len: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let content = |_| {
            let mut bytes = vec![0; len];
            random.fill_bytes(&mut bytes);
            bytes
        };
        let contents: Vec<_> = (0..files).map(content).collect();
        let files: BTreeMap<_, _> =
            contents.into_iter().enumerate().map(|(n, bytes)| (format!("usr/file-{n}"), bytes)).collect();
        Self::of_archive(registry, &archive(&files), files)
    }

    /// The layer of a tar archive that holds `files`, and what else.
    pub(crate) fn of_archive(
        registry: &TestRegistry,
        archive: &[u8],
        files: BTreeMap<String, Vec<u8>>,
    ) -> Self {
        let options = Options { chunk_size: NonZeroU64::new(64 << 10).unwrap(), ..Options::default() };
        let built = build(archive, &options).unwrap();
        let size = built.blob.len() as u64;
        let blob = Digest::of(&built.blob);
        registry.add_blob(built.blob);
        Self { blob, toc: built.toc_digest, size, files }
    }

    /// A layer that is nothing but this blob, whatever is in it.
    pub(crate) fn of(registry: &TestRegistry, blob: Finished) -> Self {
        let (digest, size) = (Digest::of(&blob.bytes), blob.bytes.len() as u64);
        registry.add_blob(blob.bytes);
        Self { blob: digest, toc: blob.toc_digest.parse().unwrap(), size, files: BTreeMap::new() }
    }
}

/// A tar archive of `files`, which are in `usr`.
pub(crate) fn archive(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    archive_in("usr", files)
}

/// A tar archive of `files`, which are in one directory.
pub(crate) fn archive_in(name: &str, files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut directory = tar::Header::new_gnu();
    directory.set_entry_type(tar::EntryType::Directory);
    directory.set_mode(0o755);
    directory.set_size(0);
    archive.append_data(&mut directory, format!("{name}/"), std::io::empty()).unwrap();
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

// === impl Image ===

impl Image {
    /// Puts an image of `layers` into the registry.
    pub(crate) fn push(registry: &TestRegistry, name: &str, layers: Vec<Layer>) -> Self {
        Self::push_with(registry, name, &format!("{{\"name\":\"{name}\"}}"), layers)
    }

    /// Puts an image of `layers` with this configuration into the registry.
    pub(crate) fn push_with(registry: &TestRegistry, name: &str, config: &str, layers: Vec<Layer>) -> Self {
        let (size, config) = (config.len(), registry.add_blob(config.to_owned()));
        let descriptors: Vec<_> = layers
            .iter()
            .map(|layer| {
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": layer.blob.to_string(),
                    "size": layer.size,
                    "annotations": { TOC_DIGEST: layer.toc.to_string() },
                })
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size },
            "layers": descriptors,
        });
        let digest = registry.add_manifest(
            name,
            "1",
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string(),
        );
        let reference = format!("{}/{name}:1", registry.host());
        Self { reference, manifest: digest.parse().unwrap(), layers }
    }

    /// The labels that containerd sends for layer `n`.
    pub(crate) fn containerd_labels(&self, n: usize) -> Labels {
        let layers: Vec<_> = self.layers[n..].iter().map(|layer| layer.blob.to_string()).collect();
        labels(&[
            ("containerd.io/snapshot.ref", self.chain(n)),
            ("containerd.io/snapshot/cri.image-ref", self.reference.clone()),
            ("containerd.io/snapshot/cri.manifest-digest", self.manifest.to_string()),
            ("containerd.io/snapshot/cri.layer-digest", self.layers[n].blob.to_string()),
            ("containerd.io/snapshot/cri.image-layers", layers.join(",")),
            (TOC_DIGEST, self.layers[n].toc.to_string()),
        ])
    }

    /// The labels that BuildKit sends for layer `n`.
    pub(crate) fn buildkit_labels(&self, n: usize) -> Labels {
        let layers: Vec<_> = self.layers[n..].iter().map(|layer| layer.blob.to_string()).collect();
        labels(&[
            ("containerd.io/snapshot.ref", self.chain(n)),
            ("containerd.io/snapshot/remote/stargz.reference.id1", self.reference.clone()),
            ("containerd.io/snapshot/remote/stargz.digest.id1", self.layers[n].blob.to_string()),
            ("containerd.io/snapshot/remote/stargz.layers.id1", layers.join(",")),
            (TOC_DIGEST, self.layers[n].toc.to_string()),
        ])
    }

    /// A name for the chain up to layer `n`, as good as a chain id.
    pub(crate) fn chain(&self, n: usize) -> String {
        let all: Vec<_> = self.layers[..=n].iter().map(|layer| layer.blob.hex()).collect();
        Digest::of(all.concat().as_bytes()).to_string()
    }
}

fn labels(pairs: &[(&str, String)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}
