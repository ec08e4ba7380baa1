//! TOC entries as the JSON has them, read one at a time.

use std::{collections::BTreeMap, fmt, io::Read, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{TocError, section, section::Allowance, time};
use crate::Digest;

/// An entry, before anything in it was checked. Unknown keys are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Entry {
    pub name: String,
    #[serde(rename = "type", deserialize_with = "text")]
    pub kind: Type,
    pub size: i64,
    #[serde(rename = "modtime", deserialize_with = "text")]
    pub mtime: Time,
    pub link_name: String,
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub dev_major: i64,
    pub dev_minor: i64,
    /// Values in base64; Go writes a value that is nil as null.
    pub xattrs: Option<BTreeMap<String, Option<String>>>,
    #[serde(deserialize_with = "text")]
    pub digest: UsableDigest,
    pub offset: i64,
    pub inner_offset: i64,
    pub chunk_offset: i64,
    pub chunk_size: i64,
    #[serde(deserialize_with = "text")]
    pub chunk_digest: UsableDigest,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Type {
    Dir,
    Reg,
    Symlink,
    Hardlink,
    Char,
    Block,
    Fifo,
    Chunk,
    Unknown(String),
}

/// Seconds since 1970 and nanoseconds; none if the text is not a time.
#[derive(Debug)]
pub(super) struct Time(pub Option<(i64, u32)>);

/// A digest that this crate can check, if the entry has one.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct UsableDigest(pub Option<Digest>);

/// Reads the TOC from `json` to its end and gives each entry to `sink`. `allowance` bounds what `json` lets through
/// for one entry.
pub(super) fn read_all(
    json: impl Read,
    allowance: &Allowance,
    sink: &mut dyn FnMut(Entry) -> Result<(), TocError>,
) -> Result<(), TocError> {
    let mut refusal = None;
    let mut deserializer = serde_json::Deserializer::from_reader(json);
    let top = Top { allowance, sink, refusal: &mut refusal };
    let result = top.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (refusal, result) {
        (Some(refusal), _) => Err(refusal),
        (None, Err(error)) if error.is_io() => Err(section::error_of(error.into())),
        (None, Err(error)) => Err(TocError::Json(error)),
        (None, Ok(())) => Ok(()),
    }
}

/// The TOC's outer object. A refusal by the sink passes by the parser, whose errors are texts.
struct Top<'a> {
    allowance: &'a Allowance,
    sink: &'a mut dyn FnMut(Entry) -> Result<(), TocError>,
    refusal: &'a mut Option<TocError>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Version,
    Entries,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for Top<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a TOC object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = false;
        while let Some(key) = map.next_key()? {
            match key {
                Key::Version => {
                    let version: i64 = map.next_value()?;
                    if version != 1 {
                        *self.refusal = Some(TocError::Version(version));
                        return Err(de::Error::custom("unknown version"));
                    }
                }
                Key::Entries if seen => return Err(de::Error::duplicate_field("entries")),
                Key::Entries => {
                    seen = true;
                    map.next_value_seed(Entries(&mut self))?;
                }
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if seen { Ok(()) } else { Err(de::Error::missing_field("entries")) }
    }
}

/// The value of `entries`: a list, or null as Go writes an empty one.
struct Entries<'a, 'b>(&'a mut Top<'b>);

impl<'de> DeserializeSeed<'de> for Entries<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of TOC entries")
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.0.allowance.renew();
        while let Some(entry) = entries.next_element()? {
            self.0.allowance.renew();
            if let Err(refusal) = (self.0.sink)(entry) {
                *self.0.refusal = Some(refusal);
                return Err(de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// Makes a value from a JSON string without a copy of it.
fn text<'de, D: Deserializer<'de>, T: for<'a> From<&'a str>>(deserializer: D) -> Result<T, D::Error> {
    struct Text<T>(PhantomData<T>);

    impl<T: for<'a> From<&'a str>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            Ok(T::from(text))
        }
    }

    deserializer.deserialize_str(Text(PhantomData))
}

impl Default for Type {
    fn default() -> Self {
        Self::Unknown(String::new())
    }
}

impl From<&str> for Type {
    fn from(text: &str) -> Self {
        match text {
            "dir" => Self::Dir,
            "reg" => Self::Reg,
            "symlink" => Self::Symlink,
            "hardlink" => Self::Hardlink,
            "char" => Self::Char,
            "block" => Self::Block,
            "fifo" => Self::Fifo,
            "chunk" => Self::Chunk,
            _ => Self::Unknown(text.chars().take(20).collect()),
        }
    }
}

impl Default for Time {
    /// The writer leaves out both an unknown time and the start of 1970.
    fn default() -> Self {
        Self(Some((0, 0)))
    }
}

impl From<&str> for Time {
    fn from(text: &str) -> Self {
        if text.is_empty() { Self::default() } else { Self(time::parse(text)) }
    }
}

impl From<&str> for UsableDigest {
    fn from(text: &str) -> Self {
        Self(text.parse().ok())
    }
}
