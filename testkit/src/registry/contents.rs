//! What a test registry holds.

use std::{
    collections::HashMap,
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use serde_json::{Value, json};

/// One blob.
#[derive(Debug, Clone)]
pub(super) enum Blob {
    Memory(Bytes),
    File { file: Arc<File>, len: u64 },
}

/// One manifest or index.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) bytes: Bytes,
}

/// Blobs by digest, manifests by repository and tag or digest, uploads by their number.
#[derive(Debug, Default)]
pub(super) struct Contents {
    blobs: HashMap<String, Blob>,
    manifests: HashMap<(String, String), Manifest>,
    pub(super) uploads: HashMap<u64, Vec<u8>>,
    pub(super) next_upload: u64,
}

// === impl Blob ===

impl Blob {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    pub(super) fn read(&self, range: Range<u64>) -> std::io::Result<Bytes> {
        let out_of_range = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let start = usize::try_from(range.start).map_err(|_| out_of_range())?;
        let end = usize::try_from(range.end).map_err(|_| out_of_range())?;
        match self {
            Self::Memory(bytes) if end <= bytes.len() && start <= end => Ok(bytes.slice(start..end)),
            Self::Memory(_) => Err(out_of_range()),
            Self::File { file, .. } => {
                let mut buf = vec![0; end - start];
                file.read_exact_at(&mut buf, range.start)?;
                Ok(buf.into())
            }
        }
    }
}

// === impl Contents ===

impl Contents {
    pub(super) fn add_blob(&mut self, bytes: Bytes) -> String {
        let digest = digest_of(&bytes);
        self.blobs.insert(digest.clone(), Blob::Memory(bytes));
        digest
    }

    pub(super) fn blob(&self, digest: &str) -> Option<Blob> {
        self.blobs.get(digest).cloned()
    }

    pub(super) fn add_manifest(
        &mut self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> String {
        let digest = digest_of(&bytes);
        let manifest = Manifest { media_type: media_type.to_owned(), digest: digest.clone(), bytes };
        self.manifests.insert((repository.to_owned(), digest.clone()), manifest.clone());
        self.manifests.insert((repository.to_owned(), tag.to_owned()), manifest);
        digest
    }

    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<&Manifest> {
        self.manifests.get(&(repository.to_owned(), reference.to_owned()))
    }

    /// Descriptors of the manifests whose subject is `subject`, as an index lists them.
    pub(super) fn referrers(
        &self,
        repository: &str,
        subject: &str,
        artifact_type: Option<&str>,
    ) -> Vec<Value> {
        let of_repository =
            self.manifests.iter().filter(|((name, by), _)| name == repository && by.contains(':'));
        let listed = of_repository.filter_map(|(_, manifest)| {
            let parsed: Value = serde_json::from_slice(&manifest.bytes).ok()?;
            let kind = parsed["artifactType"].as_str().unwrap_or_default().to_owned();
            let is_wanted = artifact_type.is_none_or(|wanted| wanted == kind);
            (is_wanted && parsed.pointer("/subject/digest")?.as_str()? == subject).then(|| {
                json!({
                    "mediaType": manifest.media_type,
                    "digest": manifest.digest,
                    "size": manifest.bytes.len(),
                    "artifactType": kind,
                    "annotations": parsed["annotations"],
                })
            })
        });
        listed.collect()
    }

    pub(super) fn delete_tag(&mut self, repository: &str, tag: &str) {
        self.manifests.remove(&(repository.to_owned(), tag.to_owned()));
    }

    pub(super) fn tags(&self, repository: &str) -> Vec<String> {
        let of_repository =
            self.manifests.keys().filter(|(name, tag)| name == repository && !tag.contains(':'));
        of_repository.map(|(_, tag)| tag.clone()).collect()
    }

    pub(super) fn add_layout(
        &mut self,
        layout: &Path,
        layout_tag: &str,
        repository: &str,
        tag: &str,
    ) -> Result<String> {
        let index = layout.join("index.json");
        let index: Value =
            serde_json::from_slice(&fs::read(&index).with_context(|| index.display().to_string())?)?;
        let tagged = |entry: &&Value| {
            entry.pointer("/annotations/org.opencontainers.image.ref.name").and_then(Value::as_str)
                == Some(layout_tag)
        };
        let entry = index["manifests"].as_array().into_iter().flatten().find(tagged);
        let entry = entry.with_context(|| format!("no tag {layout_tag} in {}", layout.display()))?;
        let digest = entry["digest"].as_str().context("a manifest without digest")?;
        let media_type = entry["mediaType"].as_str().context("a manifest without media type")?;
        for blob in fs::read_dir(layout.join("blobs/sha256"))? {
            let path = blob?.path();
            let name = path.file_name().and_then(|name| name.to_str()).context("a blob's file name")?;
            let file = File::open(&path)?;
            let len = file.metadata()?.len();
            self.blobs.insert(format!("sha256:{name}"), Blob::File { file: Arc::new(file), len });
        }
        self.add_manifest_tree(layout, repository, tag, media_type, digest)?;
        Ok(digest.to_owned())
    }

    /// Stores a manifest of a layout and, for an index, those it lists.
    fn add_manifest_tree(
        &mut self,
        layout: &Path,
        repository: &str,
        reference: &str,
        media_type: &str,
        digest: &str,
    ) -> Result<()> {
        let path: PathBuf = layout.join("blobs").join(digest.replace(':', "/"));
        let bytes = Bytes::from(fs::read(&path).with_context(|| path.display().to_string())?);
        let parsed: Value = serde_json::from_slice(&bytes)?;
        for child in parsed["manifests"].as_array().into_iter().flatten() {
            let (Some(digest), Some(kind)) = (child["digest"].as_str(), child["mediaType"].as_str()) else {
                continue;
            };
            self.add_manifest_tree(layout, repository, digest, kind, digest)?;
        }
        self.add_manifest(repository, reference, media_type, bytes);
        Ok(())
    }
}

/// The digest of `bytes` as OCI writes it.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}
