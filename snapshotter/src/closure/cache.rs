//! `/etc/ld.so.cache`: where glibc's loader finds libraries by name, as `ldconfig` wrote it down.
//!
//! The bytes come from images, so every offset is checked before it is used. An odd entry is left out; a file of an
//! unknown form tells nothing.

use std::collections::HashMap;

/// The longest cache that is read: distributions have up to some thousand libraries, of about 100 bytes each.
pub(super) const MOST_BYTES: usize = 2 << 20;
/// Entries that are looked at.
const MOST_ENTRIES: usize = 1 << 15;

/// What an old cache begins with. A new one may follow it (dl-cache.h of glibc).
const OLD: &[u8] = b"ld.so-1.7.0\0";
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
/// What a new cache begins with.
const NEW: &[u8] = b"glibc-ld.so.cache1.1";
const NEW_HEADER: usize = 48;
const NEW_ENTRY: usize = 24;

/// The kind of a library, in the low byte of an entry's flags: ELF, for glibc.
const ELF_LIBC6: u32 = 3;
/// What machines with 32 bits have in the next byte: i386, x32 and both kinds of arm.
const NARROW: [u32; 4] = [0x000, 0x800, 0x900, 0xb00];

/// The places of libraries, by name, the likeliest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cache(HashMap<String, Vec<String>>);

// === impl Cache ===

impl Cache {
    /// Reads a cache. None if it is of another form.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = if bytes.starts_with(OLD) { bytes.get(after_old(bytes)?..)? } else { bytes };
        if !bytes.starts_with(NEW) {
            return None;
        }
        let count = usize::try_from(number(bytes, NEW.len())?).ok()?.min(MOST_ENTRIES);
        let entries = bytes.get(NEW_HEADER..)?.chunks_exact(NEW_ENTRY).take(count);
        // Those for one kind of processor only come last: which one is ours nobody has said.
        let mut special = Vec::new();
        let mut cache = Self::default();
        for entry in entries {
            let Some((name, path, is_special)) = read(bytes, entry) else { continue };
            if is_special {
                special.push((name, path));
            } else {
                cache.add(name, path);
            }
        }
        special.into_iter().for_each(|(name, path)| cache.add(name, path));
        Some(cache)
    }

    /// Where a library may be.
    pub(super) fn places(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    fn add(&mut self, name: String, path: String) {
        let places = self.0.entry(name).or_default();
        if !places.contains(&path) {
            places.push(path);
        }
    }
}

/// Where the new cache begins that follows an old one.
fn after_old(bytes: &[u8]) -> Option<usize> {
    let count = usize::try_from(number(bytes, OLD.len())?).ok()?;
    let end = count.checked_mul(OLD_ENTRY)?.checked_add(OLD_HEADER)?;
    end.checked_next_multiple_of(8)
}

/// Name and path of an entry, and whether it is for special processors.
fn read(bytes: &[u8], entry: &[u8]) -> Option<(String, String, bool)> {
    let flags = number(entry, 0)?;
    if flags & 0xff != ELF_LIBC6 || NARROW.contains(&(flags & 0xff00)) {
        return None;
    }
    let text = |at: usize| {
        let start = usize::try_from(number(entry, at)?).ok()?;
        super::elf::text(bytes.get(start..)?)
    };
    let (name, path) = (text(4)?, text(8)?);
    let is_special = entry.get(16..NEW_ENTRY)?.iter().any(|byte| *byte != 0);
    path.starts_with('/').then_some((name, path, is_special))
}

/// `ldconfig` writes numbers in its own byte order: that of nearly all machines.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

#[cfg(test)]
mod tests;
