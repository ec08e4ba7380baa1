//! Sparse members: GNU's old format (type `S`) and its PAX formats 0.0, 0.1 and 1.0.
//!
//! They are described in the GNU tar manual, "Storing Sparse Files". A sparse member stores some runs of
//! the file; what lies between them is zeros.

use super::{
    field::{Block, unsigned},
    pax::{Records, decimal},
};

/// More runs than any file system makes of one file; a map of this many takes 16 MiB.
const MAX_RUNS: usize = 1 << 20;

/// A run of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where in the file.
    pub at: u64,
    /// How many bytes.
    pub len: u64,
    /// Where in the tar stream.
    pub stored_at: u64,
}

/// Offset and length in the file.
type Run = (u64, u64);

/// The map of the old format, which comes in several blocks.
#[derive(Debug)]
pub(super) struct OldMap {
    pub(super) runs: Vec<Run>,
    pub(super) more: bool,
}

/// Reads the map of format 1.0: decimal lines at the start of the payload.
#[derive(Debug, Default)]
pub(super) struct Version1 {
    line: Vec<u8>,
    count: Option<u64>,
    numbers: Vec<u64>,
}

/// The first block of an old sparse map.
pub(super) fn old_gnu(block: &Block) -> Result<OldMap, &'static str> {
    let mut map = OldMap { runs: Vec::new(), more: block.field(482, 1) != [0] };
    map.add(block, 386, 4)?;
    Ok(map)
}

impl OldMap {
    /// Takes one extension block.
    pub(super) fn extend(&mut self, block: &Block) -> Result<(), &'static str> {
        self.more = block.field(504, 1) != [0];
        self.add(block, 0, 21)
    }

    fn add(&mut self, block: &Block, start: usize, slots: usize) -> Result<(), &'static str> {
        for slot in 0..slots {
            let at = start + slot * 24;
            if block.field(at, 1) == [0] {
                break;
            }
            self.runs.push((unsigned(block.field(at, 12))?, unsigned(block.field(at + 12, 12))?));
        }
        if self.runs.len() > MAX_RUNS { Err("a sparse map with too many runs") } else { Ok(()) }
    }
}

/// The map of format 0.0 or 0.1, which is in the extended records.
pub(super) fn pax(records: &Records) -> Result<Option<Vec<Run>>, &'static str> {
    let numbers = if let Some(map) = records.get(b"GNU.sparse.map") {
        map.split(|&byte| byte == b',').map(decimal).collect::<Result<Vec<_>, _>>()?
    } else if records.get(b"GNU.sparse.offset").is_some() {
        let keys: [&[u8]; 2] = [b"GNU.sparse.offset", b"GNU.sparse.numbytes"];
        let records = records.iter().filter(|(key, _)| keys.contains(key));
        records.map(|(_, value)| decimal(value)).collect::<Result<Vec<_>, _>>()?
    } else if records.get(b"GNU.sparse.numblocks").is_some() {
        Vec::new()
    } else {
        return Ok(None);
    };
    pairs(&numbers).map(Some)
}

/// Whether the map is at the start of the payload.
pub(super) fn is_version_1(records: &Records) -> bool {
    records.get(b"GNU.sparse.major") == Some(b"1") && records.get(b"GNU.sparse.minor") == Some(b"0")
}

impl Version1 {
    /// Takes one block.
    pub(super) fn push(&mut self, block: &[u8]) -> Result<(), &'static str> {
        for &byte in block {
            if self.done() {
                break;
            }
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > 20 {
                    return Err("a sparse map whose number is out of range");
                }
                continue;
            }
            let number = decimal(&self.line)?;
            self.line.clear();
            match self.count {
                None if number > MAX_RUNS as u64 => return Err("a sparse map with too many runs"),
                None => self.count = Some(number),
                Some(_) => self.numbers.push(number),
            }
        }
        Ok(())
    }

    pub(super) fn done(&self) -> bool {
        self.count.is_some_and(|count| self.numbers.len() as u64 >= count * 2)
    }

    pub(super) fn runs(self) -> Vec<Run> {
        pairs(&self.numbers).unwrap_or_default()
    }
}

fn pairs(numbers: &[u64]) -> Result<Vec<Run>, &'static str> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > MAX_RUNS {
        return Err("a sparse map with a run without its length");
    }
    Ok(pairs.iter().map(|&[at, len]| (at, len)).collect())
}

/// The size of the file once unpacked.
pub(super) fn real_size(block: &Block, records: &Records) -> Result<u64, &'static str> {
    if block.flag() == b'S' {
        return unsigned(block.field(483, 12));
    }
    let size = match records.number(b"GNU.sparse.realsize")? {
        Some(size) => Some(size),
        None => records.number(b"GNU.sparse.size")?,
    };
    size.ok_or("a sparse member without its real size")
}

/// The member's name where the one in the header was made up for readers that do not know the format.
pub(super) fn real_name(records: &Records) -> Option<&[u8]> {
    records.get(b"GNU.sparse.name")
}

/// Gives every run its place in the stream, where the stored bytes start at `data` and are `available` long.
pub(super) fn place(runs: &[Run], data: u64, available: u64, size: u64) -> Result<Vec<Extent>, &'static str> {
    let (mut end, mut used) = (0, 0u64);
    let mut extents = Vec::new();
    for &(at, len) in runs {
        let run_end = at.checked_add(len).filter(|&run_end| at >= end && run_end <= size);
        end = run_end.ok_or("a sparse map out of order")?;
        if len > 0 {
            extents.push(Extent { at, len, stored_at: data + used });
        }
        used += len;
        if used > available {
            return Err("a sparse map longer than its member");
        }
    }
    Ok(extents)
}
