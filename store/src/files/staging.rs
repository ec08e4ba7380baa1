//! A layer's directory while it is being made.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use estargz::{Index, toc::Built};

use super::{CHUNKS, CONTENT, ChunkMap, INDEX, TOC, TocHeader, UNFINISHED, sync_dir, write_file};
use crate::{LayerKey, OpenLayerError, StoreError};

/// A directory that is deleted again unless it is finished.
#[derive(Debug)]
pub(crate) struct Staging {
    layers: PathBuf,
    dir: PathBuf,
    header: TocHeader,
    toc: BufWriter<File>,
}

// === impl Staging ===

impl Staging {
    /// Starts a layer in the directory `layers`.
    pub(crate) fn new(layers: &Path, header: TocHeader) -> Result<Self, StoreError> {
        let dir = unfinished_name(layers, &header.key);
        fs::create_dir(&dir).map_err(StoreError::new("create", &dir))?;
        let path = dir.join(TOC);
        let toc = File::options().read(true).write(true).create_new(true).open(&path);
        let toc = toc.map_err(StoreError::new("create", &path))?;
        let mut staging = Self { layers: layers.to_owned(), dir, header, toc: BufWriter::new(toc) };
        header.write(&mut staging.toc).map_err(StoreError::new("write", &path))?;
        Ok(staging)
    }

    /// Adds bytes of the compressed TOC.
    pub(crate) fn add(&mut self, section: &[u8]) -> Result<(), StoreError> {
        self.toc.write_all(section).map_err(StoreError::new("write", self.dir.join(TOC)))
    }

    /// Builds the index, checks the TOC's digest and gives the directory its name. Takes seconds for a TOC that is
    /// as long as the limits allow.
    pub(crate) fn finish(mut self) -> Result<(), OpenLayerError> {
        self.toc.flush().map_err(StoreError::new("write", self.dir.join(TOC)))?;
        let built = self.header.build_index(self.toc.get_mut())?;
        let (expected, actual) = (self.header.key.toc, built.toc_digest);
        if actual != expected {
            return Err(OpenLayerError::TocDigest { expected, actual });
        }
        self.write(&built)?;
        let named = self.layers.join(self.header.key.to_string());
        // What has the name already is nothing that could be opened.
        super::remove(&self.layers, &self.header.key)?;
        fs::rename(&self.dir, &named).map_err(StoreError::new("rename", &self.dir))?;
        Ok(sync_dir(&self.layers)?)
    }

    fn write(&self, built: &Built) -> Result<(), OpenLayerError> {
        let index = Index::parse(built.index.as_slice()).map_err(OpenLayerError::Index)?;
        let toc = self.dir.join(TOC);
        self.toc.get_ref().sync_all().map_err(StoreError::new("sync", toc))?;
        write_file(&self.dir.join(INDEX), &built.index)?;
        for (name, write) in [
            (CONTENT, &(|file: &File| file.set_len(index.content_len())) as &dyn Fn(&File) -> _),
            (CHUNKS, &|file: &File| ChunkMap::create(file, index.chunk_count())),
        ] {
            let path = self.dir.join(name);
            let file = File::create(&path).map_err(StoreError::new("create", &path))?;
            write(&file).map_err(StoreError::new("write", &path))?;
            file.sync_all().map_err(StoreError::new("sync", &path))?;
        }
        Ok(sync_dir(&self.dir)?)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Once the directory has its name there is nothing here any more.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A name in `layers` that nothing else has.
pub(super) fn unfinished_name(layers: &Path, key: &LayerKey) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    layers.join(format!("{UNFINISHED}{key}.{}.{number}", std::process::id()))
}
