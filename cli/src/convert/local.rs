//! Layers that are not eStargz ones, made into such in a directory of this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::{Context, Result, bail};
use estargz::{
    Digest,
    write::{Level, Options},
};
use registry::{Descriptor, RegistryClient};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::{
    layer::{Outcome, Workshop},
    origin::Origin,
    pool::Pool,
};
use crate::progress::Progress;

/// Makes layers of one image into local eStargz blobs, in an OCI image layout's `blobs` directory.
pub(crate) struct LocalConverter {
    workshop: Workshop,
    origin: Origin,
    directory: PathBuf,
}

/// A blob in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalBlob {
    pub(crate) blob: Digest,
    pub(crate) toc: Digest,
}

// === impl LocalConverter ===

impl LocalConverter {
    /// For layers of `image`, below `directory`. What is set when `interrupted` is makes conversions fail soon.
    pub(crate) fn start(
        image: &str,
        client: &Arc<RegistryClient>,
        runtime: Handle,
        directory: PathBuf,
        progress: Progress,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // Nothing here is sent anywhere: time matters more than size.
        let level = Level::new(1).unwrap_or_default();
        let pool = Pool::start(threads, level).context("cannot start threads")?;
        let options = Options { level, ..Options::default() };
        let workshop = Workshop { pool, options, progress, interrupted };
        Ok(Self { workshop, origin: Origin::open(image, client, runtime)?, directory })
    }

    /// Where blobs are, as an OCI image layout has them.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Fetches `layer` whole, checks its digest and converts it, unless that was done before.
    pub(crate) fn convert(&self, layer: &Descriptor) -> Result<LocalBlob> {
        let blobs = self.directory.join("blobs/sha256");
        let note = self.directory.join(format!("{}.json", layer.digest.hex()));
        if let Some(known) = fs::read(&note).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            let LocalBlob { blob, .. } = known;
            if blobs.join(blob.hex()).exists() {
                return Ok(known);
            }
        }
        fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)
            .with_context(|| format!("cannot write to {}", self.directory.display()))?;
        let source = self.origin.read(layer)?;
        match self.workshop.convert(source, Some(layer.digest), file.as_file_mut())? {
            Outcome::Plain(reason) => bail!("the layer {} cannot be mounted: {reason}", layer.digest),
            Outcome::Converted(converted) => {
                let made = LocalBlob { blob: converted.digest, toc: converted.toc_digest };
                file.persist(blobs.join(made.blob.hex())).context("cannot keep the converted layer")?;
                fs::write(&note, serde_json::to_vec(&made)?).context("cannot keep the converted layer")?;
                Ok(made)
            }
        }
    }
}
