//! eStargz blobs and TOCs for tests and benchmarks, honest and not, made without Starling's own writer: what that gets
//! wrong must not be hidden by a reader that gets the same wrong.
//!
//! Offsets, sizes and digests are those that it is given: a layer that lies is one call away from one that does not.

#![allow(clippy::unwrap_used, reason = "writing to memory does not fail, and a test fails by panicking")]

mod endless;

use std::io::Write as _;

use aws_lc_rs::digest::{SHA256, digest as hash};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

pub use self::endless::{entries, entries_len, repeat, toc_entry};

/// A blob with its TOC, piece by piece.
#[derive(Debug, Default)]
pub struct Blob {
    bytes: Vec<u8>,
    /// The tar bytes that the next member begins with.
    tar: Vec<u8>,
    entries: Vec<Value>,
}

/// A complete blob, and where in it the TOC starts.
#[derive(Debug)]
pub struct Finished {
    /// The whole blob.
    pub bytes: Vec<u8>,
    /// Where its TOC starts.
    pub toc_offset: u64,
    /// The digest of the TOC's JSON.
    pub toc_digest: String,
}

impl Blob {
    /// Adds an entry without content.
    pub fn entry(&mut self, entry: Value) -> &mut Self {
        self.tar.extend(tar_header(entry["name"].as_str().unwrap_or_default(), 0));
        self.entries.push(entry);
        self
    }

    /// Adds a regular file cut into chunks of `chunk` bytes, each in a gzip member of its own.
    pub fn file(&mut self, name: &str, data: &[u8], chunk: usize) -> &mut Self {
        self.tar.extend(tar_header(name, data.len() as u64));
        let mut entry =
            json!({"name": name, "type": "reg", "size": data.len(), "mode": 0o644, "digest": digest(data)});
        for (index, piece) in data.chunks(chunk).enumerate() {
            self.end_member();
            let offset = self.bytes.len();
            let place = json!({"offset": offset, "chunkOffset": index * chunk, "chunkSize": piece.len(), "chunkDigest": digest(piece)});
            if index > 0 {
                entry = json!({"name": name, "type": "chunk"});
            }
            entry.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
            self.entries.push(entry.take());
            self.tar.extend(piece);
        }
        if data.is_empty() {
            self.entries.push(entry);
        }
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }

    /// Adds regular files that share a gzip member, at inner offsets.
    pub fn packed(&mut self, files: &[(&str, &[u8])]) -> &mut Self {
        self.end_member();
        let offset = self.bytes.len();
        for (name, data) in files {
            self.tar.extend(tar_header(name, data.len() as u64));
            self.entries.push(json!({
                "name": name, "type": "reg", "size": data.len(), "offset": offset, "innerOffset": self.tar.len(),
                "chunkDigest": digest(data), "digest": digest(data),
            }));
            self.tar.extend(*data);
            self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        }
        self
    }

    /// Ends the blob with its TOC and footer.
    pub fn finish(&mut self) -> Finished {
        self.end_member();
        Finished::new(std::mem::take(&mut self.bytes), &toc_json(&self.entries))
    }

    fn end_member(&mut self) {
        if !self.tar.is_empty() {
            self.bytes.extend(gzip(&std::mem::take(&mut self.tar)));
        }
    }
}

impl Finished {
    /// The blob whose members are `members`, and whose TOC says `json`.
    pub fn new(members: Vec<u8>, json: &[u8]) -> Self {
        Self { toc_digest: digest(json), ..Self::with_section(members, &section(json)) }
    }

    /// The blob whose members are `members`, behind them a compressed TOC that nothing vouches for.
    pub fn with_section(members: Vec<u8>, section: &[u8]) -> Self {
        let mut bytes = members;
        let toc_offset = bytes.len() as u64;
        bytes.extend(section);
        bytes.extend(footer(toc_offset));
        Self { bytes, toc_offset, toc_digest: digest(b"") }
    }

    /// The compressed TOC.
    pub fn section(&self) -> &[u8] {
        &self.bytes[self.toc_offset as usize..self.bytes.len() - 51]
    }
}

/// The JSON of a TOC, indented as the Go writer does.
pub fn toc_json(entries: &[Value]) -> Vec<u8> {
    serde_json::to_vec_pretty(&json!({"version": 1, "entries": entries})).unwrap()
}

/// The gzip member that holds a TOC.
pub fn section(json: &[u8]) -> Vec<u8> {
    let mut tar = tar_header("stargz.index.json", json.len() as u64);
    tar.extend(json);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    gzip(&tar)
}

/// One gzip member.
pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// The tar header of a regular file.
pub fn tar_header(name: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name.trim_start_matches('/')).unwrap_or_else(|_| header.set_path("long-name").unwrap());
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// The footer of a blob whose TOC starts at `toc_offset`.
pub fn footer(toc_offset: u64) -> Vec<u8> {
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0];
    footer.extend(format!("{toc_offset:016x}STARGZ").as_bytes());
    footer.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    footer
}

/// The digest of `data`, as a TOC has it.
pub fn digest(data: &[u8]) -> String {
    format!("sha256:{}", hex::encode(hash(&SHA256, data)))
}
