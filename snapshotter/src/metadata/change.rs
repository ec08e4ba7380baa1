//! Changing the store: what each call of containerd's API does to it.

use fusefs::Slot;
use redb::{ReadableTable, Table};

use super::{
    LAST_ID_KEY,
    record::{Kind, Record, Timestamp},
    view::View,
};
use crate::{
    error::SnapshotError,
    lazy::{Labels, RemoteLayer, Usage},
    name::{Name, SnapshotId},
};

/// The state inside a write transaction.
pub type Changing<'t> = View<Table<'t, &'static str, &'static [u8]>, Table<'t, (u64, u64), &'static str>>;

/// The tables of a write transaction.
#[derive(Debug)]
pub struct Change<'t> {
    tables: Changing<'t>,
    numbers: Table<'t, &'static str, u64>,
}

// === impl Change ===

impl<'t> Change<'t> {
    pub(super) fn new(
        snapshots: Table<'t, &'static str, &'static [u8]>,
        children: Table<'t, (u64, u64), &'static str>,
        numbers: Table<'t, &'static str, u64>,
    ) -> Self {
        Self { tables: View::new(snapshots, children), numbers }
    }

    /// The state with the changes made so far.
    pub fn view(&self) -> &Changing<'t> {
        &self.tables
    }

    /// Creates an active snapshot or a view.
    ///
    /// # Errors
    /// The parent is missing or not committed, the key is taken or cannot be stored, or the database failed.
    pub fn create(
        &mut self,
        kind: Kind,
        key: &Name,
        parent: Option<&Name>,
        labels: Labels,
    ) -> Result<Record, SnapshotError> {
        let below = self.tables.parent(parent)?;
        self.check_free(key)?;
        let record = Record { labels: without_empty(labels), ..self.new_record(kind, parent)? };
        self.link(key, below.map(|record| record.id), &record)?;
        Ok(record)
    }

    /// Creates a committed snapshot whose files are a remote layer's. `name` makes its name, from its number so that it
    /// can be one that was never there.
    ///
    /// # Errors
    /// As `create`.
    pub fn create_remote(
        &mut self,
        name: impl FnOnce(SnapshotId) -> Name,
        parent: Option<&Name>,
        labels: Labels,
        layer: RemoteLayer,
    ) -> Result<(Name, Record), SnapshotError> {
        let below = self.tables.parent(parent)?;
        let record = Record {
            labels: without_empty(labels),
            remote: Some(layer),
            ..self.new_record(Kind::Committed, parent)?
        };
        let name = name(record.id);
        self.check_free(&name)?;
        self.link(&name, below.map(|record| record.id), &record)?;
        Ok((name, record))
    }

    /// Makes the active snapshot `key` the committed snapshot `name`. Labels are replaced, never merged. A snapshot that
    /// was prepared without a parent may get one here.
    ///
    /// # Errors
    /// `key` is missing or not active, `name` is taken or cannot be stored, `parent` is another than the snapshot's, is
    /// missing or is not committed, or the database failed.
    pub fn commit(
        &mut self,
        key: &Name,
        name: &Name,
        parent: Option<&Name>,
        labels: Labels,
        usage: Usage,
    ) -> Result<Record, SnapshotError> {
        let mut record = self.tables.get(key)?;
        self.check_free(name)?;
        if record.kind != Kind::Active {
            return Err(SnapshotError::NotActive(key.clone()));
        }
        let old_parent = self.parent_id(record.parent.as_ref())?;
        match (&record.parent, parent) {
            (Some(old), Some(new)) if old != new => return Err(SnapshotError::ParentChanged(key.clone())),
            (None, Some(new)) => record.parent = Some(new.clone()),
            _ => {}
        }
        let below = self.tables.parent(record.parent.as_ref()).map_err(|error| match error {
            SnapshotError::ParentNotCommitted(name) => SnapshotError::CommitParentNotCommitted(name),
            error => error,
        })?;
        let now = Timestamp::now();
        (record.kind, record.created, record.updated) = (Kind::Committed, now, now);
        (record.labels, record.usage) = (without_empty(labels), usage);
        self.tables.snapshots.remove(key.as_str())?;
        self.tables.children.remove((old_parent, record.id.get()))?;
        self.link(name, below.map(|record| record.id), &record)?;
        Ok(record)
    }

    /// Forgets the snapshot `name`.
    ///
    /// # Errors
    /// It is missing, another one stands on it, or the database failed.
    pub fn remove(&mut self, name: &Name) -> Result<Record, SnapshotError> {
        let record = self.tables.get(name)?;
        if !self.tables.children(Some(record.id))?.is_empty() {
            return Err(SnapshotError::HasChild(name.clone()));
        }
        let parent = self.parent_id(record.parent.as_ref())?;
        self.tables.snapshots.remove(name.as_str())?;
        self.tables.children.remove((parent, record.id.get()))?;
        Ok(record)
    }

    /// Shows the remote snapshot `name` and all below it as one tree in `slot`, if it is still the one with this id and they
    /// have none yet.
    ///
    /// # Errors
    /// It is missing, or the database failed.
    pub fn show_chain(&mut self, name: &Name, id: SnapshotId, slot: Slot) -> Result<(), SnapshotError> {
        let record = self.tables.get(name)?;
        if record.id == id && record.remote.is_some() && record.chain.is_none() {
            let record = Record { chain: Some(slot), ..record };
            self.tables.snapshots.insert(name.as_str(), record.encode().as_slice())?;
        }
        Ok(())
    }

    /// Replaces labels of `name`. `paths` is the field mask: `labels` for all of them, or `labels.` and a key that may have
    /// dots and slashes; no path means all that can change, which is the labels. An empty or absent label is deleted.
    ///
    /// # Errors
    /// It is missing, a path is of another form, or the database failed.
    pub fn update(
        &mut self,
        name: &Name,
        paths: &[String],
        labels: &Labels,
    ) -> Result<Record, SnapshotError> {
        let mut record = self.tables.get(name)?;
        if paths.is_empty() {
            record.labels = labels.clone();
        }
        for path in paths {
            match path.strip_prefix("labels.") {
                Some(key) => {
                    let value = labels.get(key).cloned().unwrap_or_default();
                    record.labels.insert(key.to_owned(), value);
                }
                None if path == "labels" => record.labels = labels.clone(),
                None => {
                    return Err(SnapshotError::Immutable { path: path.clone(), name: name.clone() });
                }
            }
        }
        record.labels = without_empty(record.labels);
        record.updated = Timestamp::now();
        self.tables.snapshots.insert(name.as_str(), record.encode().as_slice())?;
        Ok(record)
    }

    fn new_record(&mut self, kind: Kind, parent: Option<&Name>) -> Result<Record, SnapshotError> {
        let id = self.numbers.get(LAST_ID_KEY)?.map_or(0, |number| number.value()) + 1;
        self.numbers.insert(LAST_ID_KEY, id)?;
        let now = Timestamp::now();
        Ok(Record {
            id: SnapshotId::new(id),
            kind,
            parent: parent.cloned(),
            created: now,
            updated: now,
            labels: Labels::new(),
            usage: Usage::default(),
            remote: None,
            chain: None,
        })
    }

    fn check_free(&self, name: &Name) -> Result<(), SnapshotError> {
        if !name.is_storable() {
            return Err(SnapshotError::BadName(name.as_str().len()));
        }
        match self.tables.snapshots.get(name.as_str())? {
            Some(_) => Err(SnapshotError::Exists(name.clone())),
            None => Ok(()),
        }
    }

    fn parent_id(&self, parent: Option<&Name>) -> Result<u64, SnapshotError> {
        match parent {
            Some(parent) => Ok(self.tables.get(parent)?.id.get()),
            None => Ok(0),
        }
    }

    fn link(
        &mut self,
        name: &Name,
        parent: Option<SnapshotId>,
        record: &Record,
    ) -> Result<(), SnapshotError> {
        self.tables.snapshots.insert(name.as_str(), record.encode().as_slice())?;
        let key = (parent.map_or(0, SnapshotId::get), record.id.get());
        self.tables.children.insert(key, name.as_str())?;
        Ok(())
    }
}

/// containerd never stores a label without a value.
fn without_empty(mut labels: Labels) -> Labels {
    labels.retain(|_, value| !value.is_empty());
    labels
}
