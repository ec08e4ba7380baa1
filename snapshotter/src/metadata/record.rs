//! What is stored of one snapshot: a version byte and, for version 1, JSON.
//!
//! JSON, since a record is small, written once or twice in its life, and then readable with any tool when something
//! went wrong. A reader refuses versions it does not know; a new version is a new byte and a new struct.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use estargz::Digest;
use fusefs::Slot;
use serde::{Deserialize, Serialize};
use store::LayerKey;

use crate::{
    lazy::{Labels, RemoteLayer, Usage},
    name::{Name, SnapshotId},
};

/// The version that is written.
const VERSION: u8 = 1;

/// A snapshot as it is stored, without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub id: SnapshotId,
    /// What may be done with it.
    pub kind: Kind,
    /// The committed snapshot below it.
    pub parent: Option<Name>,
    /// When it was prepared, or committed.
    pub created: Timestamp,
    /// When its labels changed last.
    pub updated: Timestamp,
    /// Its labels; none has an empty value.
    pub labels: Labels,
    /// What it takes on disk, as measured when it was committed.
    pub usage: Usage,
    /// Where its files are, if they are not in a directory of its own.
    pub remote: Option<RemoteLayer>,
    /// Where it and all layers below it, which are remote, too, are shown as one tree.
    pub chain: Option<Slot>,
}

/// What may be done with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Read it.
    View,
    /// Change it, commit it.
    Active,
    /// Build on it.
    Committed,
}

/// Wall clock time in nanoseconds since 1970, which is what Go's clock and protobuf's timestamps can both hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(u64);

#[derive(Serialize, Deserialize)]
struct RecordV1 {
    id: u64,
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    created: Timestamp,
    updated: Timestamp,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    labels: Labels,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    inodes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remote: Option<RemoteV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct RemoteV1 {
    blob: Digest,
    toc: Digest,
    slot: u32,
}

// === impl Record ===

impl Record {
    /// The stored form.
    pub(super) fn encode(&self) -> Vec<u8> {
        let record = RecordV1 {
            id: self.id.get(),
            kind: self.kind,
            parent: self.parent.as_ref().map(|name| name.to_string()),
            created: self.created,
            updated: self.updated,
            labels: self.labels.clone(),
            size: self.usage.size,
            inodes: self.usage.inodes,
            remote: self.remote.map(|remote| RemoteV1 {
                blob: remote.key.blob,
                toc: remote.key.toc,
                slot: remote.slot.get(),
            }),
            chain: self.chain.map(Slot::get),
        };
        let mut bytes = vec![VERSION];
        serde_json::to_writer(&mut bytes, &record)
            .expect("invariant: a record has text keys and goes to memory");
        bytes
    }

    /// Reads the stored form; the error says what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let record: RecordV1 = match bytes.split_first() {
            Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|error| error.to_string())?,
            Some((version, _)) => return Err(format!("record version {version} is not known here")),
            None => return Err("the record is empty".into()),
        };
        let remote = record.remote.map(|remote| {
            let slot = Slot::new(remote.slot).ok_or("slot 0 is no layer's")?;
            Ok::<_, &str>(RemoteLayer { key: LayerKey { blob: remote.blob, toc: remote.toc }, slot })
        });
        Ok(Self {
            id: SnapshotId::new(record.id),
            kind: record.kind,
            parent: record.parent.map(Name::from),
            created: record.created,
            updated: record.updated,
            labels: record.labels,
            usage: Usage { size: record.size, inodes: record.inodes },
            remote: remote.transpose()?,
            // One that says 0 is shown layer by layer.
            chain: record.chain.and_then(Slot::new),
        })
    }
}

// === impl Kind ===

impl Kind {
    /// The kind in filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }
}

// === impl Timestamp ===

impl Timestamp {
    /// The time now.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Nanoseconds since 1970.
    pub const fn nanos(self) -> u64 {
        self.0
    }
}

impl From<Timestamp> for prost_types::Timestamp {
    fn from(time: Timestamp) -> Self {
        const NANOS: u64 = 1_000_000_000;
        let seconds = i64::try_from(time.0 / NANOS).unwrap_or(i64::MAX);
        let nanos = i32::try_from(time.0 % NANOS).unwrap_or_default();
        Self { seconds, nanos }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::btree_map, option, prelude::*};

    fn record() -> impl Strategy<Value = Record> {
        let kind = prop_oneof![Just(Kind::View), Just(Kind::Active), Just(Kind::Committed)];
        let remote =
            option::of((any::<[u8; 32]>(), any::<[u8; 32]>(), 1u32..).prop_map(|(blob, toc, slot)| {
                let key = LayerKey { blob: Digest::from_bytes(blob), toc: Digest::from_bytes(toc) };
                RemoteLayer { key, slot: Slot::new(slot).unwrap() }
            }));
        let labels = btree_map(any::<String>(), any::<String>(), 0..5);
        let parent = option::of(any::<String>().prop_map(Name::from));
        let chain = option::of((1u32..).prop_map(|slot| Slot::new(slot).unwrap()));
        (any::<[u64; 5]>(), kind, parent, labels, remote, chain).prop_map(
            |([id, created, updated, size, inodes], kind, parent, labels, remote, chain)| Record {
                id: SnapshotId::new(id),
                kind,
                parent,
                created: Timestamp(created),
                updated: Timestamp(updated),
                labels,
                usage: Usage { size, inodes },
                remote,
                chain,
            },
        )
    }

    proptest! {
        #[test]
        fn round_trips(record in record()) {
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn damaged_bytes_are_an_error_never_a_panic(record in record(), at: prop::sample::Index, with: u8) {
            let mut bytes = record.encode();
            let at = at.index(bytes.len());
            bytes[at] = with;
            let _ = Record::decode(&bytes);
            bytes.truncate(at);
            prop_assert!(Record::decode(&bytes).is_err());
        }
    }

    /// A record written by version 1 stays readable, byte for byte.
    #[test]
    fn reads_what_version_1_wrote() {
        let digest = Digest::of(b"");
        let stored = format!(
            "\u{1}{{\"id\":7,\"kind\":\"committed\",\"parent\":\"p\",\"created\":1,\"updated\":2,\"labels\":{{\"a\":\"b\"}},\
             \"size\":3,\"inodes\":4,\"remote\":{{\"blob\":\"{digest}\",\"toc\":\"{digest}\",\"slot\":9}}}}"
        );
        let record = Record::decode(stored.as_bytes()).unwrap();
        assert_eq!((record.id.get(), record.remote.unwrap().slot.get()), (7, 9));
        assert_eq!(record.encode(), stored.as_bytes());
        assert!(Record::decode(b"\x02{}").unwrap_err().contains("version 2"));
    }
}
