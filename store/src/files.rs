//! The files of a layer: `toc`, `index`, `content` and `chunks` in a directory named after its key.
//!
//! A directory gets its name once everything in it is on disk, so that what has a name is whole. The index can be built
//! again from `toc`, and `content` be fetched again, whatever became of them: only `toc` must be right.

pub(crate) mod chunk_map;
mod content;
mod staging;
mod toc_file;

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use estargz::Index;

pub(crate) use self::{
    chunk_map::{Batch, ChunkMap},
    content::Content,
    staging::Staging,
    toc_file::TocHeader,
};
use crate::{Disk, LayerKey, StoreError, sys::MappedFile};

/// The index of a layer, mapped from its file.
pub type LayerIndex = Index<MappedFile>;

const TOC: &str = "toc";
const INDEX: &str = "index";
const CONTENT: &str = "content";
const CHUNKS: &str = "chunks";
/// Directories of layers that are being made or deleted start with this; no key does.
const UNFINISHED: &str = ".";

/// The open files of a layer.
#[derive(Debug)]
pub(crate) struct LayerFiles {
    pub(crate) index: LayerIndex,
    pub(crate) content: Content,
    pub(crate) chunks: ChunkMap,
    /// Bytes that `toc`, `index` and `chunks` have.
    pub(crate) small_bytes: u64,
}

// === impl LayerFiles ===

impl LayerFiles {
    /// Opens the layer `key` in the directory `layers`; None if it is not there, or is nothing that can be used.
    pub(crate) fn open(
        layers: &Path,
        key: LayerKey,
        disk: Arc<dyn Disk>,
    ) -> Result<Option<Self>, StoreError> {
        let dir = layers.join(key.to_string());
        let toc_path = dir.join(TOC);
        let mut toc = match File::open(&toc_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(StoreError::new("open", &toc_path))?,
        };
        let header = TocHeader::read(&mut toc).map_err(StoreError::new("read", &toc_path))?;
        let Some(header) = header.filter(|header| header.key == key) else { return Ok(None) };
        let Some(index) = open_or_rebuild_index(disk.as_ref(), &dir, &header, &mut toc)? else {
            return Ok(None);
        };
        let (content_path, chunks_path) = (dir.join(CONTENT), dir.join(CHUNKS));
        let kept = fs::metadata(&content_path).is_ok_and(|content| content.len() == index.content_len());
        // First the bits, then the content that they would speak of.
        let chunks = open_chunks(&disk, &chunks_path, index.chunk_count(), kept)
            .map_err(StoreError::new("open", &chunks_path))?;
        let content = open_content(&disk, &content_path, index.content_len(), kept)
            .map_err(StoreError::new("open", &content_path))?;
        let small_bytes = [&toc_path, &dir.join(INDEX), &chunks_path]
            .into_iter()
            .filter_map(|path| fs::metadata(path).ok())
            .map(|file| file.len())
            .sum();
        Ok(Some(Self { index, content, chunks, small_bytes }))
    }
}

/// The layers that have a directory.
pub(crate) fn keys(layers: &Path) -> Vec<LayerKey> {
    let Ok(entries) = fs::read_dir(layers) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let header = TocHeader::read(&mut File::open(entry.path().join(TOC)).ok()?).ok()??;
            (entry.file_name() == header.key.to_string().as_str()).then_some(header.key)
        })
        .collect()
}

/// Makes the directory `layers`, and deletes what an earlier run did not finish making or deleting.
pub(crate) fn prepare(layers: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    fs::create_dir_all(layers).map_err(StoreError::new("create", layers))?;
    if let Some(root) = layers.parent() {
        disk.sync_dir(root).map_err(StoreError::new("sync", root))?;
    }
    for entry in fs::read_dir(layers).map_err(StoreError::new("list", layers))?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            let _ = disk.remove_dir(&entry.path());
        }
    }
    Ok(())
}

/// A layer's directory that has lost its name. What it holds is nobody's any more; a crash leaves it to the next start.
#[must_use = "it takes room until it is deleted"]
pub struct Retired {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

// === impl Retired ===

impl Retired {
    /// Deletes the files, which takes a while for large ones. Whoever has them open can go on using them.
    pub fn delete(self) -> Result<(), StoreError> {
        self.disk.remove_dir(&self.dir).map_err(StoreError::new("delete", &self.dir))
    }
}

impl fmt::Debug for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retired").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Takes a layer's directory its name, at once; none if there is no such directory.
pub(crate) fn retire(
    layers: &Path,
    key: &LayerKey,
    disk: &Arc<dyn Disk>,
) -> Result<Option<Retired>, StoreError> {
    let dir = layers.join(key.to_string());
    let doomed = staging::unfinished_name(layers, key);
    match disk.rename(&dir, &doomed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        renamed => {
            renamed.map_err(StoreError::new("rename", &dir))?;
            Ok(Some(Retired { dir: doomed, disk: Arc::clone(disk) }))
        }
    }
}

/// Deletes a layer's directory. Whoever has its files open can go on using them.
pub(crate) fn remove(layers: &Path, key: &LayerKey, disk: &Arc<dyn Disk>) -> Result<(), StoreError> {
    retire(layers, key, disk)?.map_or(Ok(()), Retired::delete)
}

fn open_or_rebuild_index(
    disk: &dyn Disk,
    dir: &Path,
    header: &TocHeader,
    toc: &mut File,
) -> Result<Option<LayerIndex>, StoreError> {
    let path = dir.join(INDEX);
    if let Some(index) = open_index(&path, header).map_err(StoreError::new("map", &path))? {
        return Ok(Some(index));
    }
    let built = match header.build_index(toc) {
        Ok(built) if built.toc_digest == header.key.toc => built,
        Ok(_) => return Ok(None),
        Err(error) => {
            tracing::warn!(layer = %header.key, error = crate::stats::chain(&error), "the kept TOC cannot be used");
            return Ok(None);
        }
    };
    let new = dir.join("index.new");
    write_file(disk, &new, &built.index)?;
    disk.rename(&new, &path).map_err(StoreError::new("rename", &new))?;
    disk.sync_dir(dir).map_err(StoreError::new("sync", dir))?;
    tracing::info!(layer = %header.key, "built the index again from the kept TOC");
    open_index(&path, header).map_err(StoreError::new("map", &path))
}

/// The index, if the file is there, of this version, of the right TOC, and as it was written.
fn open_index(path: &Path, header: &TocHeader) -> io::Result<Option<LayerIndex>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let index = Index::parse(MappedFile::map(&file)?).ok();
    let of_this = |index: &LayerIndex| {
        index.toc_digest() == header.key.toc && index.blob_size() == header.blob_size && index.check().is_ok()
    };
    Ok(index.filter(of_this))
}

/// The content file, of its full length also if what there was is not `kept`.
fn open_content(disk: &Arc<dyn Disk>, path: &Path, len: u64, kept: bool) -> io::Result<Content> {
    let file = disk.open(path)?;
    if !kept {
        disk.set_len(&file, 0)?;
        disk.set_len(&file, len)?;
    }
    Ok(Content::new(file, Arc::clone(disk)))
}

/// The chunk map, empty, and so on disk too, unless the content was `kept`.
fn open_chunks(disk: &Arc<dyn Disk>, path: &Path, count: u32, kept: bool) -> io::Result<ChunkMap> {
    let file = disk.open(path)?;
    if !kept {
        ChunkMap::create(disk.as_ref(), &file, count)?;
        disk.sync(&file)?;
    }
    ChunkMap::open(Arc::clone(disk), file, count)
}

/// Makes a file, or replaces what is in it, on disk when this returns. Its name is not.
fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let file = disk.open(path).map_err(StoreError::new("create", path))?;
    let written = disk.set_len(&file, 0).and_then(|()| disk.write(&file, bytes, 0));
    written.map_err(StoreError::new("write", path))?;
    disk.sync(&file).map_err(StoreError::new("sync", path))
}
