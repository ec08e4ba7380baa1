//! Images in `oci-layout` directories (OCI image-spec, `image-layout.md`), named `oci:DIR[:TAG|@DIGEST]`.
//!
//! They serve offline use and tests: same documents, same blobs, read by range from files.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use estargz::Digest;
use futures_util::{StreamExt, stream};
use store::{BlobSource, ByteStream, Class, SourceError, SourceErrorKind as Kind, Tail};

use crate::{
    client::refused,
    image::{Fetched, ImageSource, MAX_MANIFEST, missing},
    manifest::{Index, Parsed, media_type},
};

/// The annotation that names a manifest in `index.json`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What containerd and Docker put the whole reference into.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// What the names of such images begin with.
const PREFIX: &str = "oci:";
/// Pieces in which blobs are read.
const PIECE: u64 = 256 * 1024;

/// An image in an `oci-layout` directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciLayout {
    directory: PathBuf,
    chosen: Chosen,
}

/// Which of the directory's images it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Chosen {
    /// The only one.
    Only,
    Tag(String),
    Digest(Digest),
}

/// Why a text does not name an image in a directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} does not name an image in a directory: {reason}; the form is oci:DIR[:TAG|@DIGEST]")]
pub struct InvalidLayout {
    name: String,
    reason: &'static str,
}

/// A blob in a file.
#[derive(Debug, Clone)]
struct FileBlob {
    path: PathBuf,
}

// === impl OciLayout ===

impl OciLayout {
    /// Whether `name` is meant to name an image in a directory.
    pub fn is_name(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// Reads `oci:DIR[:TAG|@DIGEST]`. A colon in the last path component begins the tag, as in the names
    /// of skopeo; `DIR` itself may hold colons only before its last slash.
    pub fn parse(name: &str) -> Result<Self, InvalidLayout> {
        let invalid = |reason| InvalidLayout { name: name.chars().take(300).collect(), reason };
        let rest = name.strip_prefix(PREFIX).ok_or_else(|| invalid("it does not begin with oci:"))?;
        let (directory, chosen) = match rest.rsplit_once("@sha256:") {
            Some((directory, hex)) => {
                let digest =
                    format!("sha256:{hex}").parse().map_err(|_| invalid("the digest is malformed"))?;
                (directory, Chosen::Digest(digest))
            }
            None => match rest.rsplit_once(':') {
                Some((directory, tag)) if !tag.contains('/') => (directory, Chosen::Tag(tag.to_owned())),
                _ => (rest, Chosen::Only),
            },
        };
        match (directory, &chosen) {
            ("", _) => Err(invalid("the directory is missing")),
            (_, Chosen::Tag(tag)) if tag.is_empty() => Err(invalid("the tag is empty")),
            _ => Ok(Self { directory: PathBuf::from(directory), chosen }),
        }
    }

    /// The only image of `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), chosen: Chosen::Only }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs").join("sha256").join(digest.hex())
    }

    /// The digest and type of the image's document, from `index.json`.
    async fn root(&self) -> Result<(Digest, String), SourceError> {
        if let Chosen::Digest(digest) = &self.chosen {
            return Ok((*digest, String::new()));
        }
        let path = self.directory.join("index.json");
        let bytes = read_file(path.clone(), MAX_MANIFEST).await?;
        let index = match Parsed::new(&bytes, media_type::OCI_INDEX) {
            Ok(Parsed::Index(index)) => index,
            Ok(Parsed::Manifest(_)) => return Err(refused(format!("{} is not an index", path.display()))),
            Err(error) => return Err(refused(format!("{}: {error}", path.display())).caused_by(error)),
        };
        self.choose(&index)
    }

    fn choose(&self, index: &Index) -> Result<(Digest, String), SourceError> {
        let name = |descriptor: &&crate::Descriptor| match &self.chosen {
            Chosen::Tag(tag) => {
                [REF_NAME, IMAGE_NAME].iter().any(|key| descriptor.annotations.get(*key) == Some(tag))
            }
            Chosen::Only | Chosen::Digest(_) => true,
        };
        let mut found = index.manifests.iter().filter(name);
        let directory = self.directory.display();
        match (found.next(), found.next()) {
            (Some(one), None) => Ok((one.digest, one.media_type.clone())),
            (Some(one), Some(_)) if matches!(self.chosen, Chosen::Tag(_)) => {
                Ok((one.digest, one.media_type.clone()))
            }
            (Some(_), Some(_)) => {
                Err(refused(format!("{directory} holds several images; name one as oci:{directory}:TAG")))
            }
            (None, _) => Err(missing(format!("{} is not in {directory}", self.describe()))),
        }
    }
}

#[async_trait]
impl ImageSource for OciLayout {
    async fn manifest(&self, digest: Option<&Digest>) -> Result<Fetched, SourceError> {
        let (digest, media_type) = match digest {
            Some(digest) => (*digest, String::new()),
            None => self.root().await?,
        };
        let bytes = self.fetch_blob(&digest, MAX_MANIFEST).await?;
        Ok(Fetched { bytes, media_type, digest })
    }

    async fn fetch_blob(&self, digest: &Digest, max_len: u64) -> Result<Bytes, SourceError> {
        let path = self.path(digest);
        let bytes = read_file(path.clone(), max_len).await?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(refused(format!("{} does not have the digest that it is named by", path.display())))
        }
    }

    fn blob(&self, digest: Digest) -> Arc<dyn BlobSource> {
        Arc::new(FileBlob { path: self.path(&digest) })
    }

    fn describe(&self) -> String {
        let directory = self.directory.display();
        match &self.chosen {
            Chosen::Only => format!("oci:{directory}"),
            Chosen::Tag(tag) => format!("oci:{directory}:{tag}"),
            Chosen::Digest(digest) => format!("oci:{directory}@{digest}"),
        }
    }
}

// === impl FileBlob ===

#[async_trait]
impl BlobSource for FileBlob {
    async fn read_tail(&self, len: u64) -> Result<Tail, SourceError> {
        let path = self.path.clone();
        blocking(&self.path, move || {
            let file = File::open(&path)?;
            let blob_size = file.metadata()?.len();
            let start = blob_size.saturating_sub(len);
            Ok(Tail { bytes: read_at(&file, start..blob_size)?, blob_size, arrival: None })
        })
        .await
    }

    async fn read_range(&self, range: Range<u64>, _class: Class) -> Result<ByteStream, SourceError> {
        let path = self.path.clone();
        let (file, size) = blocking(&self.path, move || {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            Ok((Arc::new(file), size))
        })
        .await?;
        if range.end > size {
            return Err(refused(format!(
                "{}: bytes {range:?} lie outside its {size} bytes",
                self.describe()
            )));
        }
        let path = self.path.clone();
        let step = move |range: Range<u64>| {
            let (file, path) = (file.clone(), path.clone());
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let middle = range.end.min(range.start.saturating_add(PIECE));
                let bytes = blocking(&path, move || read_at(&file, range.start..middle)).await?;
                Ok(Some((bytes, middle..range.end)))
            }
        };
        Ok(stream::try_unfold(range, step).boxed())
    }

    fn distrust(&self) {}

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

fn read_at(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let len = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
    let mut buffer = vec![0; len];
    file.read_exact_at(&mut buffer, range.start)?;
    Ok(buffer.into())
}

async fn read_file(path: PathBuf, max_len: u64) -> Result<Bytes, SourceError> {
    let of = path.clone();
    let bytes = blocking(&of, move || {
        let file = File::open(&path)?;
        let len = file.metadata()?.len();
        if len > max_len { Ok(None) } else { read_at(&file, 0..len).map(Some) }
    })
    .await?;
    bytes.ok_or_else(|| refused(format!("{} is longer than {max_len} bytes", of.display())))
}

/// Runs file operations where they may wait for the disk.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SourceError> {
    let outcome =
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|outcome| outcome);
    outcome.map_err(|cause| {
        let kind = match cause.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied => Kind::Forbidden,
            _ => Kind::Unavailable,
        };
        SourceError::new(kind, format!("cannot read {}: {cause}", path.display())).caused_by(cause)
    })
}
