//! A table of contents as it is written, entry by entry.
//!
//! Only read after the estargz crate has built an index of the same bytes, and thereby checked them.

use std::io::{BufReader, Read};

use anyhow::{Context, Result};
use estargz::{
    limits,
    write::{NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK},
};
use serde::{Deserialize, Serialize};

/// The table.
#[derive(Debug, Deserialize)]
pub(super) struct Table {
    entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Entry {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    size: u64,
    offset: u64,
    chunk_offset: u64,
    chunk_size: u64,
}

/// What a table holds, in numbers.
#[derive(Debug, Default, Serialize)]
pub(super) struct Contents {
    pub(super) entries: u64,
    pub(super) files: u64,
    pub(super) directories: u64,
    pub(super) symlinks: u64,
    pub(super) hard_links: u64,
    pub(super) others: u64,
    /// Bytes of all files together.
    pub(super) bytes: u64,
    pub(super) chunks: u64,
    pub(super) longest_chunk: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) landmark: Option<&'static str>,
    /// How much of the blob is to be fetched first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefetch_bytes: Option<u64>,
}

/// An entry that is not a further chunk.
#[derive(Debug, Serialize)]
pub(super) struct FileInfo {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) size: u64,
    /// Where in the blob its content starts; 0 if it has none.
    pub(super) offset: u64,
}

/// Reads the table from the compressed bytes that hold it.
pub(super) fn read_table(section: &[u8]) -> Result<Table> {
    let tar = flate2::bufread::GzDecoder::new(section).take(limits::TOC_LEN);
    let mut archive = tar::Archive::new(tar);
    let entry = archive.entries()?.next().context("the table of contents is missing")??;
    Ok(serde_json::from_reader(BufReader::new(entry))?)
}

// === impl Table ===

impl Table {
    /// The entries without further chunks.
    pub(super) fn files(self) -> Vec<FileInfo> {
        let entries = self.entries.into_iter().filter(|entry| entry.kind != "chunk");
        let file = |Entry { name, kind, size, offset, .. }| FileInfo { name, kind, size, offset };
        entries.map(file).collect()
    }
}

// === impl Contents ===

impl Contents {
    /// Counts what `table` holds.
    pub(super) fn of(table: &Table) -> Self {
        let mut contents = Self::default();
        let mut size = 0;
        for entry in &table.entries {
            let kind = match entry.kind.as_str() {
                "chunk" => {
                    contents.add_chunk(entry, size);
                    continue;
                }
                "reg" => &mut contents.files,
                "dir" => &mut contents.directories,
                "symlink" => &mut contents.symlinks,
                "hardlink" => &mut contents.hard_links,
                _ => &mut contents.others,
            };
            *kind += 1;
            contents.entries += 1;
            if entry.kind == "reg" {
                size = entry.size;
                contents.bytes = contents.bytes.saturating_add(size);
                contents.note_landmark(entry);
                if size > 0 {
                    contents.add_chunk(entry, size);
                }
            }
        }
        contents
    }

    fn add_chunk(&mut self, entry: &Entry, file_size: u64) {
        let rest = file_size.saturating_sub(entry.chunk_offset);
        let len = if entry.chunk_size == 0 { rest } else { entry.chunk_size };
        self.chunks += 1;
        self.longest_chunk = self.longest_chunk.max(len);
    }

    fn note_landmark(&mut self, entry: &Entry) {
        match entry.name.trim_start_matches("./") {
            PREFETCH_LANDMARK => {
                self.landmark = Some(PREFETCH_LANDMARK);
                self.prefetch_bytes = Some(entry.offset);
            }
            NO_PREFETCH_LANDMARK => self.landmark = Some(NO_PREFETCH_LANDMARK),
            _ => {}
        }
    }
}
