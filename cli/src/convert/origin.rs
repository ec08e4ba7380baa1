//! Where an image is read from: documents, configurations and layers, for code that runs on plain threads.

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};

use anyhow::{Context, Result};
use bytes::{Buf, Bytes};
use estargz::Digest;
use futures_util::StreamExt;
use registry::{Descriptor, Fetched, ImageSource, OciLayout, Reference, RegistryClient};
use store::{ByteStream, Class};
use tokio::runtime::Handle;

/// Larger configurations are refused; containerd's limit.
const MAX_CONFIG: u64 = 8 << 20;

/// An image to convert.
pub(super) struct Origin {
    images: Arc<dyn ImageSource>,
    place: Place,
    runtime: Handle,
}

enum Place {
    Layout(OciLayout),
    Registry(Reference),
}

// === impl Origin ===

impl Origin {
    /// The image that `name` means: `oci:DIR[:TAG|@DIGEST]` or a registry's.
    pub(super) fn open(name: &str, client: &Arc<RegistryClient>, runtime: Handle) -> Result<Self> {
        if OciLayout::is_name(name) {
            let layout = OciLayout::parse(name)?;
            return Ok(Self { images: Arc::new(layout.clone()), place: Place::Layout(layout), runtime });
        }
        let reference: Reference = name.parse()?;
        Ok(Self {
            images: Arc::new(client.image(reference.clone())),
            place: Place::Registry(reference),
            runtime,
        })
    }

    /// The registry's name for it.
    pub(super) fn reference(&self) -> Option<&Reference> {
        match &self.place {
            Place::Registry(reference) => Some(reference),
            Place::Layout(_) => None,
        }
    }

    /// The image's own document, or another one that it leads to.
    pub(super) fn document(&self, digest: Option<&Digest>) -> Result<Fetched> {
        Ok(self.runtime.block_on(self.images.manifest(digest))?)
    }

    /// A small blob, checked against its digest.
    pub(super) fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes> {
        Ok(self.runtime.block_on(self.images.fetch_blob(&descriptor.digest, MAX_CONFIG))?)
    }

    /// A blob's bytes, not checked.
    pub(super) fn read(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        match &self.place {
            Place::Layout(layout) => {
                let path = layout.directory().join("blobs/sha256").join(descriptor.digest.hex());
                Ok(Box::new(File::open(&path).with_context(|| format!("cannot open {}", path.display()))?))
            }
            Place::Registry(_) => {
                let blob = self.images.blob(descriptor.digest);
                let stream = self.runtime.block_on(blob.read_range(0..descriptor.size, Class::Prefetch))?;
                Ok(Box::new(StreamReader { stream, bytes: Bytes::new(), runtime: &self.runtime }))
            }
        }
    }
}

/// A stream of bytes for a plain thread.
struct StreamReader<'a> {
    stream: ByteStream,
    bytes: Bytes,
    runtime: &'a Handle,
}

impl Read for StreamReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.bytes.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                Some(bytes) => self.bytes = bytes.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let len = self.bytes.len().min(buffer.len());
        self.bytes.copy_to_slice(buffer.get_mut(..len).unwrap_or_default());
        Ok(len)
    }
}
