//! What an image's files are, from its archives: nothing that is judged has touched it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use rand::Rng;
use serde_json::Value;

/// The regular files of an image.
#[derive(Debug)]
pub(crate) struct Truth {
    archives: Vec<File>,
    files: Vec<Known>,
}

/// A file that is not empty, by its place in an archive.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    archive: usize,
    offset: u64,
}

// === impl Truth ===

impl Truth {
    /// Of the image that the layout `layout`, with plain gzip layers, holds. The archives are kept below `scratch`.
    pub(crate) fn of_layout(layout: &Path, scratch: &Path) -> Result<Self> {
        fs::create_dir_all(scratch)?;
        let (mut archives, mut files) = (Vec::new(), BTreeMap::new());
        for (n, digest) in layers(layout)?.iter().enumerate() {
            let path = scratch.join(format!("{n}.tar"));
            let mut blob = MultiGzDecoder::new(BufReader::new(File::open(blob(layout, digest))?));
            io::copy(&mut blob, &mut BufWriter::new(File::create(&path)?)).context("unpack a layer")?;
            let archive = File::open(&path)?;
            collect(&archive, n, &mut files).with_context(|| format!("read {}", path.display()))?;
            archives.push(archive);
        }
        anyhow::ensure!(!files.is_empty(), "no files in {}", layout.display());
        Ok(Self { archives, files: files.into_values().collect() })
    }

    /// Any file.
    pub(crate) fn any(&self, random: &mut impl Rng) -> &Known {
        &self.files[random.random_range(0..self.files.len())]
    }

    /// All files.
    pub(crate) fn files(&self) -> &[Known] {
        &self.files
    }

    /// Bytes of a file.
    pub(crate) fn read(&self, file: &Known, from: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.archives[file.archive].read_exact_at(&mut bytes, file.offset + from)?;
        Ok(bytes)
    }
}

/// Later layers hide what earlier ones have; the images here delete nothing.
fn collect(archive: &File, number: usize, files: &mut BTreeMap<PathBuf, Known>) -> Result<()> {
    let mut reader = tar::Archive::new(BufReader::new(archive));
    for entry in reader.entries()? {
        let entry = entry?;
        let path = entry.path()?;
        let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
        files.remove(&path);
        if entry.header().entry_type().is_file() && entry.size() > 0 {
            let (len, offset) = (entry.size(), entry.raw_file_position());
            files.insert(path.clone(), Known { path, len, archive: number, offset });
        }
    }
    Ok(())
}

/// The digests of the layers of the one image in `layout`.
pub(crate) fn layers(layout: &Path) -> Result<Vec<String>> {
    let read = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let index = read(&layout.join("index.json"))?;
    let digest = index["manifests"][0]["digest"].as_str().context("a layout without a manifest")?;
    let mut manifest = read(&blob(layout, digest))?;
    // An index of manifests has one image, and perhaps what refers to it.
    if let Some(digest) = manifest["manifests"][0]["digest"].as_str() {
        manifest = read(&blob(layout, digest))?;
    }
    let layers = manifest["layers"].as_array().context("a manifest without layers")?;
    Ok(layers.iter().filter_map(|layer| Some(layer["digest"].as_str()?.to_owned())).collect())
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}
