//! The end of a blob, from a file or through the registry crate.

use std::{fs::File, ops::Range, os::unix::fs::FileExt, path::Path, sync::Arc};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use store::{BlobSource, Class};
use tokio::runtime::Handle;

/// A layer's blob.
pub(super) struct Blob {
    place: Place,
}

enum Place {
    File { file: File, size: u64 },
    Image { blob: Arc<dyn BlobSource>, runtime: Handle },
}

// === impl Blob ===

impl Blob {
    /// A blob in a file.
    pub(super) fn open_file(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let size = file.metadata()?.len();
        Ok(Self { place: Place::File { file, size } })
    }

    /// A blob of an image.
    pub(super) fn of_image(blob: Arc<dyn BlobSource>, runtime: Handle) -> Self {
        Self { place: Place::Image { blob, runtime } }
    }

    /// The last `len` bytes, or all, and the size of the blob.
    pub(super) fn tail(&self, len: u64) -> Result<(Vec<u8>, u64)> {
        match &self.place {
            Place::File { file, size } => Ok((read_file(file, size.saturating_sub(len)..*size)?, *size)),
            Place::Image { blob, runtime } => {
                let tail = runtime.block_on(blob.read_tail(len))?;
                Ok((tail.bytes.to_vec(), tail.blob_size))
            }
        }
    }

    /// The bytes of `range`.
    pub(super) fn range(&self, range: Range<u64>) -> Result<Vec<u8>> {
        match &self.place {
            Place::File { file, .. } => read_file(file, range),
            Place::Image { blob, runtime } => Ok(runtime.block_on(async {
                let stream = blob.read_range(range, Class::Demand).await?;
                let append = |mut bytes: Vec<u8>, next: bytes::Bytes| {
                    bytes.extend_from_slice(&next);
                    async move { Ok(bytes) }
                };
                stream.try_fold(Vec::new(), append).await
            })?),
        }
    }
}

fn read_file(file: &File, range: Range<u64>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(range.end.saturating_sub(range.start))?];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}
