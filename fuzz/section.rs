//! Compressed TOCs out of the inputs of the target `toc`.

use std::io::{Cursor, Read};

/// Where the TOCs start, far behind all content.
pub const TOC_OFFSET: u64 = 1 << 40;
/// Size of their blobs.
pub const BLOB_SIZE: u64 = TOC_OFFSET + (1 << 30);

/// The section that an input stands for: what follows a first byte of 0, else the input as JSON.
pub fn of(input: &[u8]) -> Vec<u8> {
    match input {
        [0, section @ ..] => section.to_vec(),
        json => stored(json),
    }
}

/// The JSON in a tar entry in a gzip member, stored: a mutation of the input stays a mutation of the JSON.
fn stored(json: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..18].copy_from_slice(b"stargz.index.json\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", json.len()).as_bytes());
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());

    let mut section = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let mut tar = Cursor::new(header).chain(json);
    let mut block = Vec::new();
    while tar.by_ref().take(0xffff).read_to_end(&mut block).is_ok_and(|len| len > 0) {
        let len = block.len() as u16;
        section.push(0);
        section.extend(len.to_le_bytes());
        section.extend((!len).to_le_bytes());
        section.append(&mut block);
    }
    section
}
