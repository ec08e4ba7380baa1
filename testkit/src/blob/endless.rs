//! TOCs of any length, made while they are read: what hurts is long, and need not be held.

use std::io::{self, Cursor, Read};

use super::tar_header;

/// Reads what an iterator makes.
struct Pieces<I> {
    pieces: I,
    piece: Cursor<Vec<u8>>,
}

/// Reads the same bytes over and over.
struct Repeat {
    bytes: &'static [u8],
    at: usize,
}

/// The JSON of a TOC of so many entries.
pub fn entries(count: u64, entry: fn(u64) -> String) -> impl Read {
    let pieces = (0..count).map(move |i| {
        let separator = if i == 0 { r#"{"entries":["# } else { "," };
        format!("{separator}{}", entry(i)).into_bytes()
    });
    Pieces { pieces: pieces.chain([b"]}".to_vec()]), piece: Cursor::default() }
}

/// How long [`entries`] is, one entry at least.
pub fn entries_len(count: u64, entry: fn(u64) -> String) -> u64 {
    12 + 2 + (0..count).map(|i| entry(i).len() as u64 + 1).sum::<u64>() - 1
}

/// The tar entry of a TOC that claims `len` bytes and has `json`.
pub fn toc_entry(len: u64, json: impl Read) -> impl Read {
    Cursor::new(tar_header("stargz.index.json", len)).chain(json)
}

/// `bytes` without an end.
pub fn repeat(bytes: &'static [u8]) -> impl Read {
    Repeat { bytes, at: 0 }
}

impl<I: Iterator<Item = Vec<u8>>> Read for Pieces<I> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buf)?;
            if read > 0 {
                return Ok(read);
            }
            let Some(next) = self.pieces.next() else { return Ok(0) };
            self.piece = Cursor::new(next);
        }
    }
}

impl Read for Repeat {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        for byte in buf.iter_mut() {
            *byte = self.bytes[self.at % self.bytes.len()];
            self.at += 1;
        }
        Ok(buf.len())
    }
}
