//! Writes an image as an `oci-layout` directory (OCI image-spec, `image-layout.md`).

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{Context as Sha256, SHA256};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
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

    /// Adds the gzip layer at `blob` with `zeros` more bytes at the end of its tar: the same files, another
    /// digest, and another diff ID.
    ///
    /// # Errors
    /// The blob cannot be read, or the new one not written.
    pub fn add_padded_gzip_layer(&mut self, blob: &Path, zeros: usize) -> Result<()> {
        let partial = self.dir.join("layer.partial");
        let mut target = Hashing::new(BufWriter::new(File::create(&partial)?));
        io::copy(&mut File::open(blob)?, &mut target)?;
        // Members of a gzip file are one stream to its reader (RFC 1952 section 2.2).
        let mut member = GzEncoder::new(&mut target, Compression::new(6));
        member.write_all(&vec![0; zeros])?;
        member.finish()?;
        target.flush()?;
        let (digest, size) = target.finish();
        let mut tar = Hashing::new(MultiGzDecoder::new(BufReader::new(File::open(&partial)?)));
        io::copy(&mut tar, &mut io::sink())?;
        fs::rename(&partial, self.blob(&digest))?;
        self.diff_ids.push(tar.finish().0);
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

/// Writes an image with the same files as the one that `source` holds under `tag`, and with other layers: the
/// `number` tells such images from each other.
///
/// # Errors
/// `source` is no layout with that tag, or `target` cannot be written.
pub fn write_variant(source: &Path, tag: &str, target: &Path, number: usize) -> Result<()> {
    let read = |digest: &str| -> Result<Value> {
        let path = source.join("blobs").join(digest.replace(':', "/"));
        Ok(serde_json::from_slice(&fs::read(&path).with_context(|| path.display().to_string())?)?)
    };
    let index: Value = serde_json::from_slice(&fs::read(source.join("index.json"))?)?;
    let tagged = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == tag;
    let entry = index["manifests"].as_array().into_iter().flatten().find(tagged);
    let entry = entry.with_context(|| format!("no tag {tag} in {}", source.display()))?;
    let manifest = read(entry["digest"].as_str().context("a manifest without digest")?)?;
    let config = read(manifest["config"]["digest"].as_str().context("a configuration without digest")?)?;
    let mut layout = LayoutBuilder::create(target)?;
    for layer in manifest["layers"].as_array().into_iter().flatten() {
        let digest = layer["digest"].as_str().context("a layer without digest")?;
        layout.add_padded_gzip_layer(&source.join("blobs").join(digest.replace(':', "/")), 512 * number)?;
    }
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (command, env) = (strings(&config["config"]["Cmd"]), strings(&config["config"]["Env"]));
    layout.finish(tag, &ImageConfig { command, env })?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn layer_digests(layout: &Path) -> Vec<String> {
        let names = fs::read_dir(layout.join("blobs/sha256")).unwrap();
        names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn variants_have_the_same_files_and_no_blob_in_common() {
        let dir = tempfile::tempdir().unwrap();
        let tar = dir.path().join("one.tar");
        let mut builder = tar::Builder::new(File::create(&tar).unwrap());
        let mut header = tar::Header::new_ustar();
        header.set_size(5);
        builder.append_data(&mut header, "file", &b"hello"[..]).unwrap();
        builder.into_inner().unwrap();
        let original = dir.path().join("original");
        let mut layout = LayoutBuilder::create(&original).unwrap();
        layout.add_gzip_layer(&tar).unwrap();
        layout.finish("plain", &ImageConfig { command: vec!["/file".into()], env: Vec::new() }).unwrap();
        let variants = [1, 2].map(|number| {
            let target = dir.path().join(number.to_string());
            write_variant(&original, "plain", &target, number).unwrap();
            target
        });
        let mut blobs: Vec<String> = [&original, &variants[0], &variants[1]]
            .into_iter()
            .flat_map(|layout| layer_digests(layout))
            .collect();
        let all = blobs.len();
        blobs.sort();
        blobs.dedup();
        assert_eq!((all, blobs.len()), (9, 9));
        let index: Value =
            serde_json::from_slice(&fs::read(variants[1].join("index.json")).unwrap()).unwrap();
        let blob =
            |digest: &Value| variants[1].join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
        let manifest: Value =
            serde_json::from_slice(&fs::read(blob(&index["manifests"][0]["digest"])).unwrap()).unwrap();
        let layer = File::open(blob(&manifest["layers"][0]["digest"])).unwrap();
        let mut archive = tar::Archive::new(MultiGzDecoder::new(layer));
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
}
