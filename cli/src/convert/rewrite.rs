//! The converted image's documents: new descriptors, new layer digests in the configuration, OCI's names.
//!
//! What did not change keeps its bytes, and with them its digest.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use bytes::Bytes;
use estargz::Digest;
use registry::{Descriptor, Manifest, media_type};
use serde_json::Value;

use super::{
    layer::{Converted, Outcome},
    media,
    origin::Origin,
    report::{ImageReport, LayerReport},
    target::Target,
    tree::{Child, Image, Node, REFERENCE_DIGEST},
};

/// The digest of a layer's table of contents, by which it can be pulled lazily.
pub(crate) const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Bytes of the uncompressed layer; podman needs it to save and push a lazily pulled image.
const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";
/// Annotations about the old form of a layer.
const ABOUT_OLD_FORM: [&str; 4] = [
    "containerd.io/snapshot/stargz/",
    "io.containers.estargz.",
    "io.containers.zstd-chunked.",
    "io.github.containers.zstd-chunked.",
];

/// What is to be done with a layer, known from its descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    Convert,
    /// It is an eStargz layer with this table of contents.
    Reuse(Digest),
    /// It stays as it is, for this reason.
    Keep(&'static str),
}

/// A document as it was put.
struct Put {
    digest: Digest,
    size: u64,
    media_type: String,
}

/// Writes the documents of a converted image.
pub(super) struct Writer<'a> {
    pub(super) origin: &'a Origin,
    pub(super) target: &'a Target,
    pub(super) outcomes: &'a HashMap<Digest, Outcome>,
    /// Also converts layers that are eStargz layers already.
    pub(super) force: bool,
    pub(super) reports: Vec<ImageReport>,
}

/// What to do with a layer.
pub(super) fn task(layer: &Descriptor, force: bool) -> Task {
    let Some(kind) = media::layer(&layer.media_type) else { return Task::Keep("it is not a tar archive") };
    if kind.foreign {
        return Task::Keep("it must not be distributed");
    }
    match layer.annotations.get(TOC_DIGEST).and_then(|digest| digest.parse().ok()) {
        Some(toc) if kind.gzip && !force => Task::Reuse(toc),
        _ => Task::Convert,
    }
}

// === impl Writer ===

impl Writer<'_> {
    /// Puts the whole image under its name; gives its digest.
    pub(super) fn put_image(&mut self, root: &Node) -> Result<Digest> {
        Ok(self.put_node(root, None, true)?.digest)
    }

    fn put_node(&mut self, node: &Node, descriptor: Option<&Descriptor>, root: bool) -> Result<Put> {
        match node {
            Node::Image(image) => self.put_manifest(image, descriptor, root),
            Node::Other { document, blobs } => {
                for blob in blobs {
                    self.target.copy(self.origin, blob)?;
                }
                self.put_document(&document.bytes, &document.media_type, root)
            }
            Node::Index { index, children } => {
                let mut index = index.clone();
                index.manifests = self.put_children(children)?;
                index.media_type = Some(media_type::OCI_INDEX.to_owned());
                self.put_document(&serde_json::to_vec(&index)?, media_type::OCI_INDEX, root)
            }
        }
    }

    /// Puts what an index lists, and gives the new list.
    fn put_children(&mut self, children: &[Child]) -> Result<Vec<Descriptor>> {
        let mut digests = BTreeMap::new();
        let mut descriptors = Vec::new();
        for Child { descriptor, node } in children {
            let put = self.put_node(node, Some(descriptor), false)?;
            digests.insert(descriptor.digest.to_string(), put.digest.to_string());
            let mut new = descriptor.clone();
            if put.digest != descriptor.digest {
                new.other.remove("data");
            }
            (new.digest, new.size, new.media_type) = (put.digest, put.size, put.media_type);
            descriptors.push(new);
        }
        for descriptor in &mut descriptors {
            // An attestation's own bytes stay; which manifest it is about is said here.
            if let Some(about) = descriptor.annotations.get_mut(REFERENCE_DIGEST)
                && let Some(new) = digests.get(about)
            {
                about.clone_from(new);
            }
        }
        Ok(descriptors)
    }

    fn put_manifest(&mut self, image: &Image, descriptor: Option<&Descriptor>, root: bool) -> Result<Put> {
        let mut manifest = image.manifest.clone();
        let mut diff_ids = image.diff_ids.clone();
        let mut layers = Vec::new();
        for (layer, diff_id) in manifest.layers.iter_mut().zip(&mut diff_ids) {
            layers.push(self.put_layer(layer, diff_id)?);
        }
        let config = if diff_ids == image.diff_ids {
            image.config_bytes.clone()
        } else {
            let mut config = image.config.clone();
            let listed =
                config.pointer_mut("/rootfs/diff_ids").context("the configuration lists no layers")?;
            *listed = serde_json::to_value(&diff_ids)?;
            Bytes::from(serde_json::to_vec(&config)?)
        };
        set_config(&mut manifest, self.target.put(&config)?, config.len());
        manifest.media_type = Some(media_type::OCI_MANIFEST.to_owned());
        let bytes = if manifest == image.manifest {
            image.document.bytes.clone()
        } else {
            serde_json::to_vec(&manifest)?.into()
        };
        let put = self.put_document(&bytes, media_type::OCI_MANIFEST, root)?;
        let platform =
            descriptor.and_then(|descriptor| descriptor.platform.as_ref()).map(ToString::to_string);
        let platform = platform.unwrap_or_else(|| config_platform(&image.config));
        self.reports.push(ImageReport { platform, digest: put.digest, layers });
        Ok(put)
    }

    /// Puts a layer that is kept, and makes `layer` describe what the converted image has.
    fn put_layer(&self, layer: &mut Descriptor, diff_id: &mut Digest) -> Result<LayerReport> {
        let mut report = LayerReport::new(layer);
        match task(layer, self.force) {
            Task::Reuse(toc) => report.set_reused(toc),
            Task::Keep(reason) => report.reason = Some(reason.to_owned()),
            Task::Convert => match self.outcomes.get(&layer.digest) {
                None => anyhow::bail!("the layer {} was not converted", layer.digest),
                Some(Outcome::Plain(reason)) => report.reason = Some(reason.clone()),
                Some(Outcome::Converted(converted)) => {
                    describe(layer, converted);
                    *diff_id = converted.diff_id;
                    report.set_converted(converted);
                    return Ok(report);
                }
            },
        }
        let kind = media::layer(&layer.media_type);
        if !kind.as_ref().is_some_and(|kind| kind.foreign) {
            self.target.copy(self.origin, layer)?;
        }
        if let Some(kind) = kind {
            layer.media_type = kind.name;
        }
        Ok(report)
    }

    fn put_document(&self, bytes: &[u8], media_type: &str, root: bool) -> Result<Put> {
        let put = if root { Target::put_root } else { Target::put_document };
        let digest = put(self.target, bytes, media_type)?;
        Ok(Put { digest, size: bytes.len() as u64, media_type: media_type.to_owned() })
    }
}

/// Makes `layer` describe a converted layer.
fn describe(layer: &mut Descriptor, converted: &Converted) {
    layer.media_type = media_type::OCI_LAYER_GZIP.to_owned();
    layer.digest = converted.digest;
    layer.size = converted.size;
    layer.other.remove("data");
    layer.other.remove("urls");
    layer.annotations.retain(|key, _| !ABOUT_OLD_FORM.iter().any(|prefix| key.starts_with(prefix)));
    layer.annotations.insert(TOC_DIGEST.to_owned(), converted.toc_digest.to_string());
    layer.annotations.insert(UNCOMPRESSED_SIZE.to_owned(), converted.uncompressed_size.to_string());
}

fn set_config(manifest: &mut Manifest, digest: Digest, size: usize) {
    if manifest.config.digest != digest {
        manifest.config.other.remove("data");
    }
    manifest.config.digest = digest;
    manifest.config.size = size as u64;
    manifest.config.media_type = media_type::OCI_CONFIG.to_owned();
}

fn config_platform(config: &Value) -> String {
    let field = |name: &str| config.get(name).and_then(Value::as_str);
    let parts = [field("os"), field("architecture"), field("variant")];
    parts.into_iter().flatten().collect::<Vec<_>>().join("/")
}
