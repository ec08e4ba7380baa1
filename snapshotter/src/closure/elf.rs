//! What an ELF file needs: the program that loads it, and libraries. 64 bits only, of either byte order.
//!
//! The bytes come from images. The records are taken apart by `object`, which checks bounds; every offset, address and
//! length that they hold is checked here before it is used.

use std::ops::Range;

use object::{
    elf,
    endian::Endianness,
    pod,
    read::elf::{FileHeader, ProgramHeader},
};

/// Program headers that are looked at: linkers write about ten.
const MOST_SEGMENTS: usize = 128;
/// Libraries that one file names.
const MOST_NEEDED: usize = 256;

/// What the beginning of an ELF file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Where in the file the name of its loader is.
    pub(super) interpreter: Option<Range<u64>>,
    /// Where in the file its dynamic section is.
    pub(super) dynamic: Option<Range<u64>>,
    segments: Vec<Segment>,
    endian: Endianness,
}

/// A part of the file that is mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    address: u64,
    file: Range<u64>,
}

/// A dynamic section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dynamic {
    /// Where in the file its strings are.
    pub(super) strings: Option<Range<u64>>,
    needed: Vec<u64>,
    paths: Vec<u64>,
}

// === impl Head ===

impl Head {
    /// Reads the beginning of a file, which must hold the program headers. None if it is no ELF file of 64 bits.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let header = elf::FileHeader64::<Endianness>::parse(bytes).ok()?;
        let endian = header.endian().ok()?;
        let headers = header.program_headers(endian, bytes).ok()?;
        let mut head = Self { interpreter: None, dynamic: None, segments: Vec::new(), endian };
        for segment in headers.iter().take(MOST_SEGMENTS) {
            let (start, len): (u64, u64) = (segment.p_offset(endian), segment.p_filesz(endian));
            let Some(end) = start.checked_add(len) else { continue };
            match segment.p_type(endian) {
                elf::PT_INTERP => head.interpreter = Some(start..end),
                elf::PT_DYNAMIC => head.dynamic = Some(start..end),
                elf::PT_LOAD => {
                    head.segments.push(Segment { address: segment.p_vaddr(endian), file: start..end });
                }
                _ => {}
            }
        }
        Some(head)
    }

    /// Where in the file the `len` bytes at `address` are.
    fn place(&self, address: u64, len: u64) -> Option<Range<u64>> {
        self.segments.iter().find_map(|segment| {
            let start = segment.file.start.checked_add(address.checked_sub(segment.address)?)?;
            let end = start.checked_add(len)?;
            (end <= segment.file.end).then_some(start..end)
        })
    }
}

// === impl Dynamic ===

impl Dynamic {
    /// Reads the dynamic section of the file that begins with `head`.
    pub(super) fn parse(bytes: &[u8], head: &Head) -> Option<Self> {
        let whole = bytes.len() / size_of::<elf::Dyn64<Endianness>>();
        let (entries, _) = pod::slice_from_bytes::<elf::Dyn64<Endianness>>(bytes, whole).ok()?;
        let (mut address, mut len) = (None, None);
        let (mut needed, mut paths) = (Vec::new(), Vec::new());
        for entry in entries {
            let value = entry.d_val.get(head.endian);
            match u32::try_from(entry.d_tag.get(head.endian)) {
                Ok(elf::DT_NULL) => break,
                Ok(elf::DT_STRTAB) => address = Some(value),
                Ok(elf::DT_STRSZ) => len = Some(value),
                Ok(elf::DT_NEEDED) if needed.len() < MOST_NEEDED => needed.push(value),
                Ok(elf::DT_RPATH | elf::DT_RUNPATH) if paths.len() < 2 => paths.push(value),
                _ => {}
            }
        }
        let strings = address.zip(len).and_then(|(address, len)| head.place(address, len));
        Some(Self { strings, needed, paths })
    }

    /// The libraries that are needed; `strings` is what is at [`Self::strings`].
    pub(super) fn needed(&self, strings: &[u8]) -> Vec<String> {
        self.needed.iter().filter_map(|at| string(strings, *at)).collect()
    }

    /// The directories where the file itself says that libraries are; `origin` is its own.
    pub(super) fn directories(&self, strings: &[u8], origin: &str) -> Vec<String> {
        let lists = self.paths.iter().filter_map(|at| string(strings, *at));
        let directories = lists.flat_map(|list| list.split(':').map(str::to_owned).collect::<Vec<_>>());
        let directories =
            directories.map(|path| path.replace("${ORIGIN}", origin).replace("$ORIGIN", origin));
        directories.filter(|path| path.starts_with('/')).take(MOST_SEGMENTS).collect()
    }
}

fn string(strings: &[u8], at: u64) -> Option<String> {
    text(strings.get(usize::try_from(at).ok()?..)?)
}

/// The text before the first zero byte, if it can be a path.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()?;
    (!text.is_empty() && text.len() < 4096).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
