//! One layer: its footer, its table of contents, and why it could not be pulled lazily.

use anyhow::Result;
use estargz::{Digest, footer, limits, toc::build_index};
use registry::Descriptor;
use serde::Serialize;

use super::{
    blob::Blob,
    table::{Contents, FileInfo, read_table},
};
use crate::convert::TOC_DIGEST;

/// What a manifest says about a layer.
#[derive(Debug, Default)]
pub(super) struct Expected {
    digest: Option<Digest>,
    /// From an image: then the annotation with the digest of the table of contents is needed.
    annotation: Option<Option<String>>,
}

/// What a layer is made of.
#[derive(Debug, Serialize)]
pub(super) struct LayerInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Digest>,
    /// Bytes of the blob.
    pub(super) size: u64,
    /// Whether it can be pulled lazily.
    pub(super) lazy: bool,
    /// Why it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) toc: Option<TocInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<FileInfo>,
}

/// What a table of contents says.
#[derive(Debug, Serialize)]
pub(super) struct TocInfo {
    pub(super) footer: &'static str,
    pub(super) offset: u64,
    /// Bytes it takes in the blob.
    pub(super) compressed: u64,
    pub(super) digest: Digest,
    #[serde(flatten)]
    pub(super) contents: Contents,
}

// === impl Expected ===

impl Expected {
    /// What `descriptor` says.
    pub(super) fn of(descriptor: &Descriptor) -> Self {
        let annotation = descriptor.annotations.get(TOC_DIGEST).cloned();
        Self { digest: Some(descriptor.digest), annotation: Some(annotation) }
    }

    /// Why a table of contents with this digest is not the one that the manifest vouches for.
    fn mismatch(&self, digest: &Digest) -> Option<String> {
        match self.annotation.as_ref()? {
            None => Some(format!("the manifest has no annotation {TOC_DIGEST} for it")),
            Some(annotated) if *annotated == digest.to_string() => None,
            Some(annotated) => Some(format!("the manifest says that its table of contents is {annotated}")),
        }
    }
}

/// Reads the end of `blob`; an error is one of reading, not of what was read.
pub(super) fn inspect(blob: &Blob, expected: Expected, files: bool) -> Result<LayerInfo> {
    let (tail, size) = blob.tail(footer::MAX_LEN as u64)?;
    let mut info =
        LayerInfo { digest: expected.digest, size, lazy: false, reason: None, toc: None, files: Vec::new() };
    let footer = match footer::parse(&tail, size) {
        Ok(footer) => footer,
        Err(error) => {
            info.reason = Some(error.to_string());
            return Ok(info);
        }
    };
    let section = footer.toc_offset..size - footer.len;
    let compressed = section.end - section.start;
    if compressed > limits::TOC_SECTION_LEN {
        info.reason = Some(format!("its table of contents takes {compressed} bytes"));
        return Ok(info);
    }
    let section = blob.range(section)?;
    info.reason = match build_index(section.as_slice(), footer.toc_offset, size) {
        Ok(built) => {
            let table = read_table(&section)?;
            let contents = Contents::of(&table);
            let kind = match footer.kind {
                footer::Kind::Estargz => "estargz",
                footer::Kind::LegacyStargz => "stargz",
            };
            let digest = built.toc_digest;
            info.toc =
                Some(TocInfo { footer: kind, offset: footer.toc_offset, compressed, digest, contents });
            if files {
                info.files = table.files();
            }
            expected.mismatch(&digest)
        }
        Err(error) => Some(format!("{:#}", anyhow::Error::from(error))),
    };
    info.lazy = info.reason.is_none();
    Ok(info)
}
