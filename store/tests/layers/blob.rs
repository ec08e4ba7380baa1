//! Blobs to test with, and what their files hold.

use std::{collections::BTreeMap, num::NonZeroU64};

use estargz::{Digest, NodeId, write};
use store::{Layer, LayerKey};

/// An eStargz blob and the truth about it.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) bytes: bytes::Bytes,
    pub(crate) key: LayerKey,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Blob {
    /// Files with these names and lengths, of bytes that hardly compress.
    pub(crate) fn new(files: &[(&str, usize)], chunk_size: u64) -> Self {
        Self::with(
            files,
            &write::Options { chunk_size: NonZeroU64::new(chunk_size).unwrap(), ..Default::default() },
        )
    }

    pub(crate) fn with(files: &[(&str, usize)], options: &write::Options) -> Self {
        let files: BTreeMap<_, _> =
            files.iter().map(|(name, len)| ((*name).to_owned(), noise(name, *len))).collect();
        let mut tar = tar::Builder::new(Vec::new());
        for (name, data) in &files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, data.as_slice()).unwrap();
        }
        let built = write::build(&tar.into_inner().unwrap(), options).unwrap();
        let key = LayerKey { blob: Digest::of(&built.blob), toc: built.toc_digest };
        Self { bytes: built.blob.into(), key, files }
    }

    /// Many small files.
    pub(crate) fn small_files(count: usize, len: usize) -> Self {
        let names: Vec<_> = (0..count).map(|number| format!("file{number:04}")).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), len)).collect();
        Self::new(&files, 4 << 20)
    }

    pub(crate) fn truth(&self, name: &str) -> &[u8] {
        &self.files[name]
    }
}

/// The node of a file in the root directory.
pub(crate) fn node(layer: &Layer, name: &str) -> NodeId {
    layer.index().lookup(NodeId::ROOT, name.as_bytes()).unwrap().unwrap()
}

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut state =
        Digest::of(seed.as_bytes()).as_bytes()[..8].iter().fold(1u64, |n, b| n << 8 | u64::from(*b)) | 1;
    let mut data = Vec::with_capacity(len + 8);
    while data.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(len);
    data
}
