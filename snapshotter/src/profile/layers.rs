//! From the profiles of layers to a document, and back.

use std::{collections::HashSet, sync::Arc};

use estargz::{ChunkId, Digest, NodeId};
use store::{Layer, PlanId};

use super::{Access, Document, Part};

/// What is known of an image, in one order. Layers of which nothing is known are left out, and so are files whose names
/// are not text.
pub fn describe(manifest: Digest, plan: PlanId, layers: &[Arc<Layer>]) -> Document {
    let mut document =
        Document { version: Document::VERSION, manifest, layers: Vec::new(), accesses: Vec::new() };
    for layer in layers {
        let Some(profile) = layer.profile_of(plan).filter(|profile| !profile.accesses().is_empty()) else {
            continue;
        };
        let number = document.layers.len() as u32;
        document.layers.push(Part { blob: layer.key().blob, toc: layer.key().toc });
        let accesses = profile.accesses().iter();
        document.accesses.extend(accesses.filter_map(|access| named(layer, number, access)));
    }
    document.accesses.sort_by_key(|access| access.at);
    if let Some(began) = document.accesses.first().map(|access| access.at) {
        document.accesses.iter_mut().for_each(|access| access.at -= began);
    }
    document.accesses = joined(document.accesses);
    document.accesses.truncate(Document::MOST_ACCESSES);
    document
}

fn named(layer: &Layer, number: u32, access: &store::Access) -> Option<Access> {
    let index = layer.index();
    let chunk = index.chunk(access.chunk).ok()?;
    let file = index.file(chunk.node).ok()?;
    let path = String::from_utf8(index.path(chunk.node).ok()?).ok()?;
    let offset = chunk.content_offset.checked_sub(file.content_offset)?;
    Some(Access {
        layer: number,
        path: path.trim_start_matches('/').to_owned(),
        offset,
        length: chunk.len,
        at: access.at,
    })
}

/// Pieces of a file that follow one another become one.
fn joined(accesses: Vec<Access>) -> Vec<Access> {
    let mut joined = Vec::<Access>::new();
    for access in accesses {
        match joined.last_mut() {
            Some(last)
                if (last.layer, &last.path) == (access.layer, &access.path)
                    && last.offset.checked_add(last.length) == Some(access.offset) =>
            {
                last.length = last.length.saturating_add(access.length);
            }
            _ => joined.push(access),
        }
    }
    joined
}

/// What `document` says about `layer`, by chunks. What the layer does not have is left out.
pub fn accesses(document: &Document, layer: &Layer) -> Vec<store::Access> {
    let key = layer.key();
    let is_this = |part: &&Part| part.blob == key.blob && part.toc == key.toc;
    let Some(number) = document.layers.iter().position(|part| is_this(&part)) else { return Vec::new() };
    let mut seen = HashSet::<ChunkId>::new();
    let mut found = Vec::new();
    for access in document.accesses.iter().filter(|access| access.layer as usize == number) {
        let Some(node) = node(layer, &access.path) else { continue };
        let range = access.offset..access.offset.saturating_add(access.length);
        let Ok(chunks) = layer.index().chunks_of(node, range) else { continue };
        for chunk in chunks.filter(|chunk| seen.insert(*chunk)) {
            if found.len() >= store::Profile::MOST_ACCESSES {
                return found;
            }
            found.push(store::Access { chunk, at: access.at });
        }
    }
    found
}

fn node(layer: &Layer, path: &str) -> Option<NodeId> {
    path.split('/').try_fold(NodeId::ROOT, |directory, name| {
        layer.index().lookup(directory, name.as_bytes()).ok().flatten()
    })
}
