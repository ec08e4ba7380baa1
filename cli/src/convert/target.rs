//! Where the converted image goes: an `oci-layout` directory or a registry.
//!
//! Blobs come before the documents that name them, and the name of the whole image comes last, so an
//! interrupted conversion leaves nothing that can be found by its name.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use estargz::{Digest, Sha256};
use parking_lot::Mutex;
use registry::{Descriptor, Index, Mounted, OciLayout, Reference, RegistryClient, media_type};
use serde_json::Map;
use tempfile::NamedTempFile;
use tokio::runtime::Handle;

use super::origin::Origin;

/// The annotation that names a manifest in `index.json` (OCI image-spec, `annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A place for an image.
pub(super) struct Target {
    place: Place,
    runtime: Handle,
}

enum Place {
    Layout { directory: PathBuf, tag: String, index: Mutex<()> },
    Registry { client: Arc<RegistryClient>, reference: Reference },
}

// === impl Target ===

impl Target {
    /// The place that `name` means: `oci:DIR[:TAG]` or a tag of a registry. A directory is made if it is not there.
    pub(super) fn open(name: &str, client: &Arc<RegistryClient>, runtime: Handle) -> Result<Self> {
        let place = if OciLayout::is_name(name) {
            let (directory, tag) = layout_name(name)?;
            prepare(&directory)
                .with_context(|| format!("cannot make an image layout in {}", directory.display()))?;
            Place::Layout { directory, tag, index: Mutex::new(()) }
        } else {
            let reference: Reference = name.parse()?;
            if reference.digest().is_some() {
                bail!("{name} names a digest, which the converted image cannot have; name a tag");
            }
            Place::Registry { client: Arc::clone(client), reference }
        };
        Ok(Self { place, runtime })
    }

    /// A file for a blob that is to be written. It vanishes unless it is kept with [`Self::keep`].
    pub(super) fn new_blob(&self) -> Result<NamedTempFile> {
        let file = match &self.place {
            Place::Layout { directory, .. } => {
                tempfile::Builder::new().prefix(".partial-").tempfile_in(directory)
            }
            Place::Registry { .. } => NamedTempFile::new(),
        };
        file.context("cannot make a temporary file")
    }

    /// Keeps a written blob under its digest.
    pub(super) fn keep(&self, file: NamedTempFile, digest: &Digest) -> Result<()> {
        match &self.place {
            Place::Layout { directory, .. } => {
                // Readers of a layout may be other users, which temporary files are closed to.
                let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
                file.as_file().set_permissions(permissions)?;
                let path = blob_path(directory, digest);
                file.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
            }
            Place::Registry { client, reference } => {
                if self.runtime.block_on(client.blob_exists(reference, digest))?.is_none() {
                    self.runtime.block_on(client.upload_file(reference, digest, file.path()))?;
                }
            }
        }
        Ok(())
    }

    /// Puts a small blob.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has(&digest)? {
            let mut file = self.new_blob()?;
            file.write_all(bytes)?;
            self.keep(file, &digest)?;
        }
        Ok(digest)
    }

    /// Copies a blob as it is.
    pub(super) fn copy(&self, origin: &Origin, descriptor: &Descriptor) -> Result<()> {
        if self.has(&descriptor.digest)? || self.mount(origin, &descriptor.digest)? {
            return Ok(());
        }
        let mut file = self.new_blob()?;
        let mut hasher = Sha256::new();
        let mut source = origin.read(descriptor)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = source.read(&mut buffer)?;
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            file.write_all(bytes)?;
        }
        let digest = hasher.finish();
        if digest != descriptor.digest {
            bail!("the blob {} has the wrong content: its digest is {digest}", descriptor.digest);
        }
        self.keep(file, &digest)
    }

    /// Puts a document that another one names.
    pub(super) fn put_document(&self, bytes: &[u8], media_type: &str) -> Result<Digest> {
        match &self.place {
            Place::Layout { .. } => self.put(bytes),
            Place::Registry { client, reference } => {
                let name = format!("{}/{}@{}", reference.host(), reference.repository(), Digest::of(bytes));
                self.put_manifest(client, &name.parse()?, bytes, media_type)
            }
        }
    }

    /// Puts the document of the whole image, and names it.
    pub(super) fn put_root(&self, bytes: &[u8], media_type: &str) -> Result<Digest> {
        match &self.place {
            Place::Layout { directory, tag, index } => {
                let digest = self.put(bytes)?;
                let _alone = index.lock();
                name_in_index(directory, tag, bytes, media_type).context("cannot write index.json")?;
                Ok(digest)
            }
            Place::Registry { client, reference } => self.put_manifest(client, reference, bytes, media_type),
        }
    }

    fn put_manifest(
        &self,
        client: &RegistryClient,
        name: &Reference,
        bytes: &[u8],
        media_type: &str,
    ) -> Result<Digest> {
        let put = client.put_manifest(name, media_type, Bytes::copy_from_slice(bytes));
        Ok(self.runtime.block_on(put)?)
    }

    fn has(&self, digest: &Digest) -> Result<bool> {
        match &self.place {
            Place::Layout { directory, .. } => Ok(blob_path(directory, digest).exists()),
            Place::Registry { client, reference } => {
                Ok(self.runtime.block_on(client.blob_exists(reference, digest))?.is_some())
            }
        }
    }

    /// Takes a blob over from another repository of the same registry.
    fn mount(&self, origin: &Origin, digest: &Digest) -> Result<bool> {
        let (Place::Registry { client, reference }, Some(source)) = (&self.place, origin.reference()) else {
            return Ok(false);
        };
        if source.api_host() != reference.api_host() || source.repository() == reference.repository() {
            return Ok(false);
        }
        let mounted = self.runtime.block_on(client.mount(reference, digest, source.repository()))?;
        Ok(mounted == Mounted::Yes)
    }
}

/// Directory and tag of `oci:DIR[:TAG]`.
fn layout_name(name: &str) -> Result<(PathBuf, String)> {
    let directory = OciLayout::parse(name)?.directory().to_owned();
    let rest = name.strip_prefix("oci:").unwrap_or(name);
    if rest.contains("@sha256:") {
        bail!("{name} names a digest, which the converted image cannot have; name a tag");
    }
    let tag = Path::new(rest).strip_prefix(&directory).is_err().then(|| rest.rsplit_once(':')).flatten();
    Ok((directory, tag.map_or("latest", |(_, tag)| tag).to_owned()))
}

fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs/sha256").join(digest.hex())
}

fn prepare(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory.join("blobs/sha256"))?;
    let marker = directory.join("oci-layout");
    if marker.exists() { Ok(()) } else { fs::write(marker, r#"{"imageLayoutVersion":"1.0.0"}"#) }
}

/// Makes `tag` mean the document in the directory's `index.json`.
fn name_in_index(directory: &Path, tag: &str, bytes: &[u8], media_type: &str) -> Result<()> {
    let path = directory.join("index.json");
    let mut index = match fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("{} is malformed", path.display()))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => empty_index(),
        Err(error) => return Err(error.into()),
    };
    index.manifests.retain(|manifest| manifest.annotations.get(REF_NAME).is_none_or(|name| name != tag));
    index.manifests.push(Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        annotations: [(REF_NAME.to_owned(), tag.to_owned())].into(),
        platform: None,
        other: Map::new(),
    });
    let mut file = NamedTempFile::new_in(directory)?;
    serde_json::to_writer(&mut file, &index)?;
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(&path)?;
    Ok(())
}

fn empty_index() -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: Vec::new(),
        annotations: [].into(),
        other: Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_has_a_directory_and_a_tag() {
        for (name, directory, tag) in [
            ("oci:dir", "dir", "latest"),
            ("oci:/a/b", "/a/b", "latest"),
            ("oci:dir:v1", "dir", "v1"),
            ("oci:/x:y/dir", "/x:y/dir", "latest"),
            ("oci:/x:y/dir:v", "/x:y/dir", "v"),
        ] {
            assert_eq!(layout_name(name).unwrap(), (PathBuf::from(directory), tag.to_owned()), "{name}");
        }
        assert!(layout_name(&format!("oci:dir@sha256:{}", "0".repeat(64))).is_err());
        assert!(layout_name("oci:").is_err());
    }

    #[test]
    fn a_tag_means_the_last_document() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        for (tag, bytes) in [("a", b"1"), ("b", b"2"), ("a", b"3")] {
            name_in_index(dir.path(), tag, bytes, media_type::OCI_MANIFEST).unwrap();
        }
        let index: Index = serde_json::from_slice(&fs::read(dir.path().join("index.json")).unwrap()).unwrap();
        let names: Vec<_> =
            index.manifests.iter().map(|one| (one.digest, one.annotations[REF_NAME].as_str())).collect();
        assert_eq!(names, [(Digest::of(b"2"), "b"), (Digest::of(b"3"), "a")]);
    }
}
