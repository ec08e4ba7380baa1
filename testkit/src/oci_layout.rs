//! Writes an image as an `oci-layout` directory (OCI image-spec, `image-layout.md`).

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{Context as Sha256, SHA256};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What a container of the image runs.
#[derive(Debug, Clone, Default)]
pub struct ImageConfig {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The environment, each `NAME=value`.
    pub env: Vec<String>,
}

/// An image under construction: layers first, then [`Self::finish`].
#[derive(Debug)]
pub struct LayoutBuilder {
    dir: PathBuf,
    layers: Vec<Value>,
    diff_ids: Vec<String>,
}

// === impl LayoutBuilder ===

impl LayoutBuilder {
    /// Starts a layout in the new directory `dir`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir.join("blobs/sha256")).with_context(|| format!("create {}", dir.display()))?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { dir: dir.to_owned(), layers: Vec::new(), diff_ids: Vec::new() })
    }

    /// Adds the tar at `tar` as a gzip layer.
    ///
    /// # Errors
    /// The tar cannot be read or the blob not written.
    pub fn add_gzip_layer(&mut self, tar: &Path) -> Result<()> {
        let partial = self.dir.join("layer.partial");
        let mut source = Hashing::new(BufReader::new(File::open(tar)?));
        let target = Hashing::new(BufWriter::new(File::create(&partial)?));
        let mut gzip = GzEncoder::new(target, Compression::new(6));
        io::copy(&mut source, &mut gzip)?;
        let mut target = gzip.finish()?;
        target.flush()?;
        let (digest, size) = target.finish();
        fs::rename(&partial, self.blob(&digest))?;
        self.diff_ids.push(source.finish().0);
        self.layers.push(json!({ "mediaType": GZIP_LAYER, "digest": digest, "size": size }));
        Ok(())
    }

    /// Adds a blob that is there already, with its descriptor's `annotations`.
    ///
    /// # Errors
    /// The blob cannot be written.
    pub fn add_blob_layer(&mut self, blob: &[u8], diff_id: &str, annotations: &Value) -> Result<()> {
        let (digest, size) = self.put(blob)?;
        self.diff_ids.push(diff_id.to_owned());
        self.layers.push(
            json!({ "mediaType": GZIP_LAYER, "digest": digest, "size": size, "annotations": annotations }),
        );
        Ok(())
    }

    /// Writes the configuration, the manifest and the index, and gives the manifest's digest.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(self, tag: &str, config: &ImageConfig) -> Result<String> {
        let history: Vec<Value> = self.layers.iter().map(|_| json!({ "created_by": "testkit" })).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": config.command, "Env": config.env },
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids },
            "history": history,
        });
        let (config_digest, config_size) = self.put(&serde_json::to_vec(&config)?)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": config_digest, "size": config_size },
            "layers": self.layers,
        });
        let (digest, size) = self.put(&serde_json::to_vec(&manifest)?)?;
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": digest,
                "size": size,
                "annotations": { "org.opencontainers.image.ref.name": tag },
            }],
        });
        fs::write(self.dir.join("index.json"), serde_json::to_vec(&index)?)?;
        Ok(digest)
    }

    fn put(&self, blob: &[u8]) -> Result<(String, usize)> {
        let mut hasher = Sha256::new(&SHA256);
        hasher.update(blob);
        let digest = format!("sha256:{}", hex::encode(hasher.finish()));
        fs::write(self.blob(&digest), blob)?;
        Ok((digest, blob.len()))
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest.replace(':', "/"))
    }
}

/// Counts and hashes what passes through.
struct Hashing<T> {
    inner: T,
    hasher: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hasher: Sha256::new(&SHA256), bytes: 0 }
    }

    fn saw(&mut self, data: &[u8]) {
        self.hasher.update(data);
        self.bytes += data.len() as u64;
    }

    fn finish(self) -> (String, u64) {
        (format!("sha256:{}", hex::encode(self.hasher.finish())), self.bytes)
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.saw(buf.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf)?;
        self.saw(buf.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
