//! The documents of an image, read before anything is converted: indexes, images, and what only looks like one.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use estargz::Digest;
use registry::{Descriptor, Fetched, Index, Manifest, Parsed, Platform, media_type::OCI_MANIFEST};
use serde_json::Value;

use super::{media, origin::Origin};

/// An index in an index in an index has no use; a cycle has neither.
const MAX_DEPTH: usize = 4;
/// Marks a manifest in an index that says something about another one (BuildKit, "attestation storage").
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The digest of the manifest that an attestation is about.
pub(super) const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// A document with all below it.
#[derive(Debug)]
pub(super) enum Node {
    Index {
        index: Index,
        children: Vec<Child>,
    },
    Image(Box<Image>),
    /// Not an image: copied as it is, blobs included.
    Other {
        document: Fetched,
        blobs: Vec<Descriptor>,
    },
}

/// A document in an index.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) descriptor: Descriptor,
    pub(super) node: Node,
}

/// An image for one platform.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) document: Fetched,
    pub(super) manifest: Manifest,
    pub(super) config_bytes: Bytes,
    pub(super) config: Value,
    pub(super) diff_ids: Vec<Digest>,
}

/// Reads the image's documents; of those in an index only the ones for `platforms`, or all if there are none.
pub(super) fn read(origin: &Origin, platforms: &[Platform]) -> Result<Node> {
    let root = origin.document(None)?;
    let node = read_node(origin, root, platforms, 0)?;
    match &node {
        Node::Other { document, .. } => bail!("{} is not an image", document.digest),
        Node::Index { children, .. } if children.is_empty() => {
            bail!("the image has nothing for the given platforms")
        }
        _ => Ok(node),
    }
}

fn read_node(origin: &Origin, document: Fetched, platforms: &[Platform], depth: usize) -> Result<Node> {
    match document.parse()? {
        Parsed::Manifest(manifest) => read_manifest(origin, document, manifest),
        Parsed::Index(_) if depth == MAX_DEPTH => bail!("the image's indexes are nested too deeply"),
        Parsed::Index(index) => {
            let mut children = Vec::new();
            for descriptor in &index.manifests {
                let wanted = is_attestation(descriptor) || fits(descriptor, platforms);
                if wanted {
                    children.push(read_child(origin, descriptor, platforms, depth)?);
                }
            }
            drop_orphans(&mut children);
            Ok(Node::Index { index, children })
        }
    }
}

fn read_child(
    origin: &Origin,
    descriptor: &Descriptor,
    platforms: &[Platform],
    depth: usize,
) -> Result<Child> {
    let mut document = origin.document(Some(&descriptor.digest))?;
    if !descriptor.media_type.is_empty() {
        document.media_type.clone_from(&descriptor.media_type);
    }
    let node = match document.parse() {
        Ok(Parsed::Manifest(manifest)) if is_attestation(descriptor) => other(document, &manifest),
        _ => read_node(origin, document, platforms, depth + 1)?,
    };
    Ok(Child { descriptor: descriptor.clone(), node })
}

/// An attestation goes where the manifest goes that it is about.
fn drop_orphans(children: &mut Vec<Child>) {
    let present: BTreeSet<_> = children.iter().map(|child| child.descriptor.digest.to_string()).collect();
    children.retain(|child| match child.descriptor.annotations.get(REFERENCE_DIGEST) {
        Some(about) if is_attestation(&child.descriptor) => present.contains(about),
        _ => true,
    });
}

fn read_manifest(origin: &Origin, document: Fetched, manifest: Manifest) -> Result<Node> {
    let is_image = media::is_config(&manifest.config.media_type) && !manifest.layers.iter().any(is_statement);
    if !is_image {
        return Ok(other(document, &manifest));
    }
    let config_bytes = origin.small_blob(&manifest.config)?;
    let config: Value =
        serde_json::from_slice(&config_bytes).context("the image's configuration is malformed")?;
    let diff_ids = config.pointer("/rootfs/diff_ids").cloned().unwrap_or_default();
    let diff_ids: Vec<Digest> =
        serde_json::from_value(diff_ids).context("the image's configuration does not list its layers")?;
    if diff_ids.len() != manifest.layers.len() {
        let (listed, layers) = (diff_ids.len(), manifest.layers.len());
        bail!("the image {} has {layers} layers, but its configuration lists {listed}", document.digest);
    }
    Ok(Node::Image(Box::new(Image { document, manifest, config_bytes, config, diff_ids })))
}

/// Attestations have an image's configuration too, for registries that take nothing else.
fn is_statement(layer: &Descriptor) -> bool {
    layer.media_type == "application/vnd.in-toto+json"
}

fn other(mut document: Fetched, manifest: &Manifest) -> Node {
    if document.media_type.is_empty() {
        document.media_type = manifest.media_type.clone().unwrap_or_else(|| OCI_MANIFEST.to_owned());
    }
    let blobs = std::iter::once(&manifest.config).chain(&manifest.layers).cloned().collect();
    Node::Other { document, blobs }
}

fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotations.get(REFERENCE_TYPE).is_some_and(|kind| kind == "attestation-manifest")
}

fn fits(descriptor: &Descriptor, platforms: &[Platform]) -> bool {
    let Some(platform) = &descriptor.platform else { return true };
    let same = |wanted: &Platform| {
        let variant = wanted.variant.is_none() || wanted.variant == platform.variant;
        wanted.os == platform.os && wanted.architecture == platform.architecture && variant
    };
    platforms.is_empty() || platforms.iter().any(same)
}

// === impl Node ===

impl Node {
    /// The images in it, in order.
    pub(super) fn images(&self) -> Vec<&Image> {
        match self {
            Self::Image(image) => vec![image],
            Self::Other { .. } => Vec::new(),
            Self::Index { children, .. } => children.iter().flat_map(|child| child.node.images()).collect(),
        }
    }
}
