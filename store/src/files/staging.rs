//! A layer's directory while it is being made.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use estargz::{Index, toc::Built};

use super::{CHUNKS, CONTENT, ChunkMap, INDEX, TOC, TocHeader, UNFINISHED, write_file};
use crate::{Disk, LayerKey, OpenLayerError, StoreError};

/// A directory that is deleted again unless it is finished.
pub(crate) struct Staging {
    layers: PathBuf,
    dir: PathBuf,
    header: TocHeader,
    toc: BufWriter<Growing>,
    disk: Arc<dyn Disk>,
}

/// A file that is written from its beginning on.
struct Growing {
    file: File,
    len: u64,
    disk: Arc<dyn Disk>,
}

// === impl Growing ===

impl Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.write(&self.file, bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Staging ===

impl Staging {
    /// Starts a layer in the directory `layers`.
    pub(crate) fn new(layers: &Path, header: TocHeader, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let dir = unfinished_name(layers, &header.key);
        disk.create_dir(&dir).map_err(StoreError::new("create", &dir))?;
        let path = dir.join(TOC);
        let file = disk.open(&path).map_err(StoreError::new("create", &path))?;
        let toc = BufWriter::new(Growing { file, len: 0, disk: Arc::clone(&disk) });
        let mut staging = Self { layers: layers.to_owned(), dir, header, toc, disk };
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
        let built = self.header.build_index(&mut self.toc.get_mut().file)?;
        let (expected, actual) = (self.header.key.toc, built.toc_digest);
        if actual != expected {
            return Err(OpenLayerError::TocDigest { expected, actual });
        }
        self.write(&built)?;
        let named = self.layers.join(self.header.key.to_string());
        // What has the name already is nothing that could be opened.
        super::remove(&self.layers, &self.header.key, &self.disk)?;
        self.disk.rename(&self.dir, &named).map_err(StoreError::new("rename", &self.dir))?;
        Ok(self.disk.sync_dir(&self.layers).map_err(StoreError::new("sync", &self.layers))?)
    }

    fn write(&self, built: &Built) -> Result<(), OpenLayerError> {
        let index = Index::parse(built.index.as_slice()).map_err(OpenLayerError::Index)?;
        let disk = self.disk.as_ref();
        disk.sync(&self.toc.get_ref().file).map_err(StoreError::new("sync", self.dir.join(TOC)))?;
        write_file(disk, &self.dir.join(INDEX), &built.index)?;
        for (name, write) in [
            (CONTENT, &(|file: &File| disk.set_len(file, index.content_len())) as &dyn Fn(&File) -> _),
            (CHUNKS, &|file: &File| ChunkMap::create(disk, file, index.chunk_count())),
        ] {
            let path = self.dir.join(name);
            let file = disk.open(&path).map_err(StoreError::new("create", &path))?;
            write(&file).map_err(StoreError::new("write", &path))?;
            disk.sync(&file).map_err(StoreError::new("sync", &path))?;
        }
        Ok(disk.sync_dir(&self.dir).map_err(StoreError::new("sync", &self.dir))?)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Once the directory has its name there is nothing here any more.
        let _ = self.disk.remove_dir(&self.dir);
    }
}

/// A name in `layers` that nothing else has.
pub(super) fn unfinished_name(layers: &Path, key: &LayerKey) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    layers.join(format!("{UNFINISHED}{key}.{}.{number}", std::process::id()))
}
