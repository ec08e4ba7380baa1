//! Extended attributes while a TOC is read. Nodes with the same attributes share them: a layer made under
//! SELinux has one label on a hundred thousand files.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hash, Hasher, RandomState},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hashbrown::HashTable;
use zerocopy::little_endian::U32;

use super::{Problem, TocError, error::Refusal, path, strings::Strings};
use crate::{index::layout::XattrRecord, limits};

/// Prefixes of attributes that an image does not get to set. `trusted.*` is for the host's root, and containerd
/// drops it too; `user.overlay.*` is how overlayfs marks whiteouts and opaque directories when it may not use
/// `trusted.*`, and those come from whiteouts only.
const DROPPED: [&str; 2] = ["trusted.", "user.overlay."];
/// Prefix of POSIX ACLs, access and default.
const POSIX_ACL: &str = "system.posix_acl_";

/// The attributes of one node: records of [`XattrSets`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct XattrSet {
    pub first: u32,
    pub count: u32,
    pub has_posix_acl: bool,
}

#[derive(Debug, Default)]
pub(super) struct XattrSets {
    /// Strings of a record are places in the [`Strings`] of the TOC.
    records: Vec<XattrRecord>,
    sets: HashTable<XattrSet>,
    hasher: RandomState,
}

impl XattrSets {
    /// Adds the attributes of an entry, whose values are in base64.
    pub(super) fn add(
        &mut self,
        strings: &mut Strings,
        xattrs: &BTreeMap<String, Option<String>>,
    ) -> Result<XattrSet, Refusal> {
        let set = decode(xattrs)?;
        if set.is_empty() {
            return Ok(XattrSet::default());
        }
        let hash = hash_of(&self.hasher, set.iter().map(pair));
        if let Some(known) = self.sets.find(hash, |known| self.pairs(strings, known).eq(set.iter().map(pair)))
        {
            return Ok(*known);
        }
        if self.records.len() + set.len() > limits::XATTRS {
            return Err(
                TocError::TooMuch { what: "extended attributes", limit: limits::XATTRS as u64 }.into()
            );
        }
        let first = self.records.len() as u32;
        for (name, value) in &set {
            self.records.push(XattrRecord {
                name: strings.add(name.as_bytes())?.into(),
                name_len: U32::new(name.len() as u32),
                value: strings.add(value)?.into(),
                value_len: U32::new(value.len() as u32),
            });
        }
        let has_posix_acl = set.iter().any(|(name, _)| name.starts_with(POSIX_ACL));
        let added = XattrSet { first, count: set.len() as u32, has_posix_acl };
        let Self { records, sets, hasher } = self;
        sets.insert_unique(hash, added, |set| hash_of(hasher, pairs(records, strings, set)));
        Ok(added)
    }

    pub(super) fn into_records(self) -> Vec<XattrRecord> {
        self.records
    }

    fn pairs<'a>(
        &'a self,
        strings: &'a Strings,
        set: &XattrSet,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        pairs(&self.records, strings, set)
    }
}

/// The attributes that are kept, with their values decoded, in the order of their names.
fn decode(xattrs: &BTreeMap<String, Option<String>>) -> Result<Vec<(&str, Vec<u8>)>, Problem> {
    let mut set = Vec::new();
    let mut list_len = 0;
    for (name, value) in xattrs {
        if DROPPED.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        path::check_text(name)?;
        within("the length of an attribute's name", name.len(), limits::XATTR_NAME_LEN)?;
        list_len += name.len() + 1;
        within("the length of its list of attributes", list_len, limits::XATTR_LIST_LEN)?;
        let value = STANDARD
            .decode(value.as_deref().unwrap_or_default())
            .map_err(|_| Problem::Nonsense("has an extended attribute that is not base64"))?;
        within("the length of an attribute's value", value.len(), limits::XATTR_VALUE_LEN)?;
        if name.is_empty() {
            return Err(Problem::Nonsense("has an extended attribute without a name"));
        }
        set.push((name.as_str(), value));
    }
    Ok(set)
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), Problem> {
    if found <= limit {
        Ok(())
    } else {
        Err(Problem::OverLimit { what, found: found as u64, limit: limit as u64 })
    }
}

fn pair<'a>((name, value): &'a (&str, Vec<u8>)) -> (&'a [u8], &'a [u8]) {
    (name.as_bytes(), value)
}

/// Attributes of `set` as names and values.
fn pairs<'a>(
    records: &'a [XattrRecord],
    strings: &'a Strings,
    set: &XattrSet,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let get = |place: U32, len: U32| strings.get(place.get(), len.get() as usize);
    let first = set.first as usize;
    let records = records.get(first..first + set.count as usize).unwrap_or_default();
    records.iter().map(move |record| (get(record.name, record.name_len), get(record.value, record.value_len)))
}

fn hash_of<'a>(hasher: &RandomState, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> u64 {
    let mut state = hasher.build_hasher();
    pairs.for_each(|pair| pair.hash(&mut state));
    state.finish()
}
