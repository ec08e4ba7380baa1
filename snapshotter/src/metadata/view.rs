//! Reading the store, inside a transaction of either kind.

use std::{collections::BTreeSet, ops::ControlFlow};

use fusefs::Slot;
use redb::{ReadOnlyTable, ReadableTable};

use super::record::{Kind, Record};
use crate::{
    error::SnapshotError,
    filters::{Fields, Filters},
    lazy::{Chain, RemoteLayer},
    name::{Name, SnapshotId},
};

/// A consistent state of the store.
pub struct View<S = ReadOnlyTable<&'static str, &'static [u8]>, C = ReadOnlyTable<(u64, u64), &'static str>> {
    pub(super) snapshots: S,
    pub(super) children: C,
}

/// One snapshot of the chain below another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Below {
    /// Its number.
    pub id: SnapshotId,
    /// Where its files are, if not in a directory of its own.
    pub remote: Option<RemoteLayer>,
    /// Where it and all below it are shown as one tree.
    pub chain: Option<Slot>,
}

/// What is served lazily and referred to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InUse {
    /// The layers.
    pub layers: BTreeSet<RemoteLayer>,
    /// The slots of chains that are shown as one tree.
    pub chains: BTreeSet<Slot>,
}

struct Snapshot<'a> {
    name: &'a str,
    record: &'a Record,
}

// === impl View ===

impl<S, C> View<S, C>
where
    S: ReadableTable<&'static str, &'static [u8]>,
    C: ReadableTable<(u64, u64), &'static str>,
{
    pub(super) fn new(snapshots: S, children: C) -> Self {
        Self { snapshots, children }
    }

    /// The snapshot `name`, if there is one.
    ///
    /// # Errors
    /// The database failed.
    pub fn find(&self, name: &Name) -> Result<Option<Record>, SnapshotError> {
        match self.snapshots.get(name.as_str())? {
            Some(bytes) => decode(name.as_str(), bytes.value()).map(Some),
            None => Ok(None),
        }
    }

    /// The snapshot `name`.
    ///
    /// # Errors
    /// There is none, or the database failed.
    pub fn get(&self, name: &Name) -> Result<Record, SnapshotError> {
        self.find(name)?.ok_or_else(|| SnapshotError::Missing(name.clone()))
    }

    /// The committed snapshot `name` that something may stand on; none for no name.
    ///
    /// # Errors
    /// There is none, it is not committed, or the database failed.
    pub fn parent(&self, name: Option<&Name>) -> Result<Option<Record>, SnapshotError> {
        let Some(name) = name else { return Ok(None) };
        let record = self.find(name)?.ok_or_else(|| SnapshotError::MissingParent(name.clone()))?;
        match record.kind {
            Kind::Committed => Ok(Some(record)),
            Kind::Active | Kind::View => Err(SnapshotError::ParentNotCommitted(name.clone())),
        }
    }

    /// The chain that starts with the committed snapshot `name`, uppermost first.
    ///
    /// # Errors
    /// A link of it is missing or damaged, or the database failed.
    pub fn chain(&self, name: Option<&Name>) -> Result<Vec<Below>, SnapshotError> {
        Ok(self.below(name)?.iter().map(|(_, record)| Below::from(record)).collect())
    }

    /// The snapshots of the chain that starts with the committed snapshot `name`, uppermost first.
    ///
    /// # Errors
    /// As `chain`.
    pub fn below(&self, name: Option<&Name>) -> Result<Vec<(Name, Record)>, SnapshotError> {
        let mut chain = Vec::new();
        let mut next = name.cloned();
        while let Some(name) = next {
            let record = self.find(&name)?.ok_or_else(|| SnapshotError::MissingParent(name.clone()))?;
            next = record.parent.clone();
            chain.push((name, record));
        }
        Ok(chain)
    }

    /// The chains that are shown as one tree.
    ///
    /// # Errors
    /// The database failed, or a record is damaged.
    pub fn chains(&self) -> Result<Vec<Chain>, SnapshotError> {
        let mut shown = Vec::new();
        self.walk(&Filters::default(), |name, record| {
            shown.extend(record.chain.map(|_| name));
            ControlFlow::Continue(())
        })?;
        let mut chains = Vec::new();
        for name in shown {
            chains.extend(Below::as_one(&self.chain(Some(&name))?));
        }
        Ok(chains)
    }

    /// The names of the snapshots on top of `parent`; without a parent, of those that stand on nothing.
    ///
    /// # Errors
    /// The database failed.
    pub fn children(&self, parent: Option<SnapshotId>) -> Result<Vec<Name>, SnapshotError> {
        let parent = parent.map_or(0, SnapshotId::get);
        let rows = self.children.range((parent, 0)..=(parent, u64::MAX))?;
        rows.map(|row| Ok(Name::from(row?.1.value()))).collect()
    }

    /// The committed snapshots on top of `parent` whose label `label` has this value. containerd looks for the same after
    /// an `AlreadyExists`, through List.
    ///
    /// # Errors
    /// The database failed.
    pub fn committed_with_label(
        &self,
        parent: Option<SnapshotId>,
        label: &str,
        value: &str,
    ) -> Result<Vec<Record>, SnapshotError> {
        let mut found = Vec::new();
        for name in self.children(parent)? {
            let record = self.get(&name)?;
            if record.kind == Kind::Committed && record.labels.get(label).is_some_and(|found| found == value)
            {
                found.push(record);
            }
        }
        Ok(found)
    }

    /// Calls `visit` with every snapshot that `filters` select, by name, until it breaks.
    ///
    /// # Errors
    /// The database failed, or a record is damaged.
    pub fn walk(
        &self,
        filters: &Filters,
        mut visit: impl FnMut(Name, Record) -> ControlFlow<()>,
    ) -> Result<(), SnapshotError> {
        for row in self.snapshots.iter()? {
            let (name, bytes) = row?;
            let record = decode(name.value(), bytes.value())?;
            if filters.select(&Snapshot { name: name.value(), record: &record })
                && visit(name.value().into(), record).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// The ids of all snapshots.
    ///
    /// # Errors
    /// The database failed.
    pub fn ids(&self) -> Result<BTreeSet<SnapshotId>, SnapshotError> {
        self.children.iter()?.map(|row| Ok(SnapshotId::new(row?.0.value().1))).collect()
    }

    /// Everything that is served lazily and that a snapshot refers to.
    ///
    /// # Errors
    /// The database failed, or a record is damaged.
    pub fn in_use(&self) -> Result<InUse, SnapshotError> {
        let mut in_use = InUse::default();
        self.walk(&Filters::default(), |_, record| {
            in_use.layers.extend(record.remote);
            in_use.chains.extend(record.chain);
            ControlFlow::Continue(())
        })?;
        Ok(in_use)
    }
}

// === impl Below ===

impl Below {
    /// What shows all of a chain, given from its uppermost snapshot on, as one tree, if anything does.
    pub fn as_one(chain: &[Self]) -> Option<Chain> {
        let slot = chain.first()?.chain?;
        let layers = chain.iter().map(|below| below.remote).collect::<Option<_>>()?;
        Some(Chain { slot, layers })
    }
}

impl From<&Record> for Below {
    fn from(record: &Record) -> Self {
        Self { id: record.id, remote: record.remote, chain: record.chain }
    }
}

impl<S, C> std::fmt::Debug for View<S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("View")
    }
}

fn decode(name: &str, bytes: &[u8]) -> Result<Record, SnapshotError> {
    Record::decode(bytes).map_err(|reason| SnapshotError::Damaged { name: name.into(), reason })
}

impl Fields for Snapshot<'_> {
    fn field(&self, path: &[String]) -> Option<&str> {
        match path.split_first().map(|(first, rest)| (first.as_str(), rest))? {
            ("name", _) => Some(self.name),
            ("parent", _) => Some(self.record.parent.as_ref().map_or("", Name::as_str)),
            ("kind", _) => Some(self.record.kind.as_str()),
            ("labels", key) => self.record.labels.get(&key.join(".")).map(String::as_str),
            _ => None,
        }
    }
}
