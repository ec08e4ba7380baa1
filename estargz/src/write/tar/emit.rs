//! Header blocks made from metadata: ustar, with a PAX extended header for whatever does not fit it.

use super::{BLOCK, Header, Kind, field::octal, padding};

/// The header blocks of a member with this metadata, extended header included.
pub(crate) fn header_blocks(header: &Header) -> Vec<u8> {
    let mut records = Vec::new();
    let mut block = [0; BLOCK as usize];
    text(&mut block, 0, 100, &header.name, b"path", &mut records);
    number(&mut block, 100, 8, header.mode, None, &mut records);
    number(&mut block, 108, 8, header.uid, Some(b"uid"), &mut records);
    number(&mut block, 116, 8, header.gid, Some(b"gid"), &mut records);
    number(&mut block, 124, 12, header.size, Some(b"size"), &mut records);
    time(&mut block, header.mtime, &mut records);
    put(&mut block, 156, &[flag(header.kind)]);
    text(&mut block, 157, 100, &header.link_name, b"linkpath", &mut records);
    put(&mut block, 257, b"ustar\x0000");
    text(&mut block, 265, 32, &header.user_name, b"uname", &mut records);
    text(&mut block, 297, 32, &header.group_name, b"gname", &mut records);
    number(&mut block, 329, 8, header.dev_major, None, &mut records);
    number(&mut block, 337, 8, header.dev_minor, None, &mut records);
    for (key, value) in &header.xattrs {
        record(&[b"SCHILY.xattr.", key.as_slice()].concat(), value, &mut records);
    }
    check_sum(&mut block);
    if records.is_empty() {
        return block.to_vec();
    }
    let mut blocks = extended(records.len() as u64).to_vec();
    blocks.extend_from_slice(&records);
    blocks.resize(blocks.len() + padding(records.len() as u64) as usize, 0);
    blocks.extend_from_slice(&block);
    blocks
}

fn flag(kind: Kind) -> u8 {
    match kind {
        Kind::Regular => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Char => b'3',
        Kind::Block => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// The block that announces `len` bytes of records.
fn extended(len: u64) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    put(&mut block, 0, b"PaxHeaders.0/x");
    for (at, width) in [(100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8)] {
        number(&mut block, at, width, 0, None, &mut Vec::new());
    }
    number(&mut block, 124, 12, len, None, &mut Vec::new());
    put(&mut block, 156, b"x");
    put(&mut block, 257, b"ustar\x0000");
    check_sum(&mut block);
    block
}

fn put(block: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in block.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

fn text(block: &mut [u8], at: usize, width: usize, value: &[u8], key: &[u8], records: &mut Vec<u8>) {
    put(block, at, value.get(..width).unwrap_or(value));
    if value.len() > width || !value.is_ascii() {
        record(key, value, records);
    }
}

fn number(block: &mut [u8], at: usize, width: usize, value: u64, key: Option<&[u8]>, records: &mut Vec<u8>) {
    let mut field = vec![0; width];
    if !octal(value, &mut field) {
        octal(0, &mut field);
        if let Some(key) = key {
            record(key, value.to_string().as_bytes(), records);
        }
    }
    put(block, at, &field);
}

fn time(block: &mut [u8], (seconds, nanoseconds): (i64, u32), records: &mut Vec<u8>) {
    let mut field = [0; 12];
    let fits = u64::try_from(seconds).is_ok_and(|seconds| octal(seconds, &mut field));
    if !fits {
        octal(0, &mut field);
    }
    put(block, 136, &field);
    if !fits || nanoseconds != 0 {
        let decimal = match (seconds, nanoseconds) {
            (_, 0) => seconds.to_string(),
            (0.., _) => format!("{seconds}.{nanoseconds:09}"),
            // Seconds are rounded down, the decimal form is a sign and a magnitude.
            _ => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
        };
        record(b"mtime", decimal.as_bytes(), records);
    }
}

/// A record whose length counts its own digits.
fn record(key: &[u8], value: &[u8], records: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() > len {
        len = rest + len.to_string().len();
    }
    records.extend_from_slice(format!("{len} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn check_sum(block: &mut [u8]) {
    put(block, 148, b"        ");
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    let mut field = [0; 7];
    octal(sum, &mut field);
    put(block, 148, &field);
}
