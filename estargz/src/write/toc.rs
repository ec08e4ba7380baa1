//! The table of contents as JSON, with the keys and the order of the Go library.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use super::{
    plan::Entry,
    tar::{Header, Kind},
};
use crate::Digest;

/// One entry of the table (`docs/estargz.md` of stargz-snapshotter, "TOCEntry").
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TocEntry<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(rename = "modtime", skip_serializing_if = "String::is_empty")]
    mtime: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    link_name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    user_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group_name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    inner_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
}

/// A chunk with its place in the blob.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlacedChunk {
    pub(super) offset: u64,
    pub(super) inner_offset: u64,
    pub(super) file_offset: u64,
    /// 0 for the last chunk of a file, unless it is a full one.
    pub(super) size: u64,
    pub(super) last: bool,
    pub(super) digest: Digest,
}

/// Names that were last written with an id: the table repeats a name only where it changes.
#[derive(Debug, Default)]
pub(super) struct LastNames<'a> {
    users: BTreeMap<u64, &'a str>,
    groups: BTreeMap<u64, &'a str>,
}

/// Writes the table piece by piece, laid out as Go's `MarshalIndent(toc, "", "\t")` does.
#[derive(Debug)]
pub(super) struct TocWriter<W> {
    out: W,
    first: bool,
}

// === impl TocWriter ===

impl<W: Write> TocWriter<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(b"{\n\t\"version\": 1,\n\t\"entries\": [\n\t\t")?;
        Ok(Self { out, first: true })
    }

    pub(super) fn add(&mut self, entry: &TocEntry<'_>) -> io::Result<()> {
        if !std::mem::take(&mut self.first) {
            self.out.write_all(b",\n\t\t")?;
        }
        let mut indented = Indented { out: &mut self.out };
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        entry.serialize(&mut serde_json::Serializer::with_formatter(&mut indented, formatter))?;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(b"\n\t]\n}")?;
        Ok(self.out)
    }
}

/// Indents every line after the first by two more tabs. A line feed inside a string is escaped in JSON.
struct Indented<'a, W> {
    out: &'a mut W,
}

impl<W: Write> Write for Indented<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        for (at, line) in data.split(|&byte| byte == b'\n').enumerate() {
            if at > 0 {
                self.out.write_all(b"\n\t\t")?;
            }
            self.out.write_all(line)?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

// === impl TocEntry ===

impl<'a> TocEntry<'a> {
    /// The entry itself, without its chunks. `name` and `link_name` must outlive it and be UTF-8.
    pub(super) fn new(entry: &'a Entry, names: &mut LastNames<'a>) -> Self {
        let header = &entry.header;
        let device = matches!(header.kind, Kind::Char | Kind::Block);
        let link = matches!(header.kind, Kind::HardLink | Kind::Symlink);
        Self {
            name: utf8(&header.name),
            kind: kind(header.kind),
            size: header.size,
            mtime: rfc3339(header.mtime),
            link_name: if link { utf8(&header.link_name) } else { "" },
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            user_name: changed(&mut names.users, header.uid, utf8(&header.user_name)),
            group_name: changed(&mut names.groups, header.gid, utf8(&header.group_name)),
            dev_major: if device { header.dev_major } else { 0 },
            dev_minor: if device { header.dev_minor } else { 0 },
            xattrs: xattrs(header),
            ..Self::default()
        }
    }

    /// A chunk after the first.
    pub(super) fn chunk(name: &'a Entry, chunk: &PlacedChunk) -> Self {
        let mut entry = Self { name: utf8(&name.header.name), kind: "chunk", ..Self::default() };
        entry.set_chunk(chunk);
        entry
    }

    /// Sets the digest of the file's whole content.
    pub(super) fn set_digest(&mut self, digest: Digest) {
        self.digest = Some(digest);
    }

    /// Sets where a chunk is, and what it is to be.
    pub(super) fn set_chunk(&mut self, chunk: &PlacedChunk) {
        self.offset = chunk.offset;
        self.inner_offset = chunk.inner_offset;
        self.chunk_offset = chunk.file_offset;
        self.chunk_size = chunk.size;
        self.chunk_digest = Some(chunk.digest);
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Regular => "reg",
        Kind::HardLink => "hardlink",
        Kind::Symlink => "symlink",
        Kind::Char => "char",
        Kind::Block => "block",
        Kind::Directory => "dir",
        Kind::Fifo => "fifo",
    }
}

/// Names that matter were checked by the plan; a user's or group's name that is not UTF-8 is left out.
fn utf8(name: &[u8]) -> &str {
    std::str::from_utf8(name).unwrap_or_default()
}

fn changed<'a>(last: &mut BTreeMap<u64, &'a str>, id: u64, name: &'a str) -> &'a str {
    if name.is_empty() || last.insert(id, name) == Some(name) { "" } else { name }
}

fn xattrs(header: &Header) -> BTreeMap<&str, String> {
    header.xattrs.iter().map(|(name, value)| (utf8(name), STANDARD.encode(value))).collect()
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// UTC in RFC 3339 form, empty for 1970 or a year that the form cannot hold. The fraction of a second is kept:
/// Go's parser takes one although its writer rounds, and a rounded-up second would differ from the one that
/// Python's byte code files were compiled for.
fn rfc3339((seconds, nanoseconds): (i64, u32)) -> String {
    const DAY: i64 = 86_400;
    if seconds == 0 && nanoseconds == 0 {
        return String::new();
    }
    let (days, time) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    if !(0..=9999).contains(&year) {
        return String::new();
    }
    let mut text =
        format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60);
    if nanoseconds != 0 {
        let fraction = format!(".{nanoseconds:09}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let days = days.saturating_add(719_468);
    let (era, day_of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_times_as_rfc_3339() {
        for (time, text) in [
            ((0, 0), ""),
            ((1, 0), "1970-01-01T00:00:01Z"),
            ((0, 500_000_000), "1970-01-01T00:00:00.5Z"),
            ((-1, 0), "1969-12-31T23:59:59Z"),
            ((951_782_400, 0), "2000-02-29T00:00:00Z"),
            ((1_735_689_599, 123_456_789), "2024-12-31T23:59:59.123456789Z"),
            ((4_102_444_800, 0), "2100-01-01T00:00:00Z"),
            ((i64::MAX, 0), ""),
            ((i64::MIN, 0), ""),
        ] {
            assert_eq!(rfc3339(time), text, "{time:?}");
        }
    }

    #[test]
    fn lays_the_table_out_as_go_does() {
        let mut writer = TocWriter::new(Vec::new()).unwrap();
        writer.add(&TocEntry { name: "a\nb", kind: "dir", mode: 0o755, ..TocEntry::default() }).unwrap();
        let xattrs = BTreeMap::from([("user.x", "eQ==".to_owned())]);
        writer.add(&TocEntry { name: "c", kind: "fifo", xattrs, ..TocEntry::default() }).unwrap();
        let text = String::from_utf8(writer.finish().unwrap()).unwrap();
        assert_eq!(
            text,
            "{\n\t\"version\": 1,\n\t\"entries\": [\n\t\t{\n\t\t\t\"name\": \"a\\nb\",\n\t\t\t\"type\": \"dir\",\n\t\t\t\
             \"mode\": 493\n\t\t},\n\t\t{\n\t\t\t\"name\": \"c\",\n\t\t\t\"type\": \"fifo\",\n\t\t\t\"xattrs\": {\n\t\t\t\t\
             \"user.x\": \"eQ==\"\n\t\t\t}\n\t\t}\n\t]\n}"
        );
    }
}
