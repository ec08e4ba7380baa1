//! containerd's store (`core/snapshots/storage/bolt.go`) as a map, in the order of its checks.

use std::collections::BTreeMap;

use super::{Call, layer};
use crate::{
    error::SnapshotError,
    lazy::{Labels, RemoteLayer, Usage},
    metadata::{Kind, Record},
    name::Name,
};

/// A snapshot without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) id: u64,
    kind: Kind,
    parent: Option<String>,
    labels: Labels,
    usage: Usage,
    remote: Option<RemoteLayer>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    snapshots: BTreeMap<String, Shown>,
    last: u64,
}

// === impl Shown ===

impl Shown {
    pub(super) fn of(name: &Name, record: &Record) -> Self {
        Self {
            name: name.to_string(),
            id: record.id.get(),
            kind: record.kind,
            parent: record.parent.as_ref().map(Name::to_string),
            labels: record.labels.clone(),
            usage: record.usage,
            remote: record.remote,
        }
    }
}

// === impl Model ===

impl Model {
    pub(super) fn listed(&self) -> Vec<Shown> {
        self.snapshots.values().cloned().collect()
    }

    pub(super) fn names(&self) -> Vec<Name> {
        self.snapshots.keys().map(|name| Name::from(name.as_str())).collect()
    }

    pub(super) fn chain(&self, name: &Name) -> Vec<u64> {
        let mut chain = Vec::new();
        let mut next = self.snapshots[name.as_str()].parent.clone();
        while let Some(name) = next {
            let snapshot = &self.snapshots[&name];
            chain.push(snapshot.id);
            next = snapshot.parent.clone();
        }
        chain
    }

    pub(super) fn apply(&mut self, call: &Call) -> Result<Shown, SnapshotError> {
        match call.clone() {
            Call::Create { kind, key, parent, labels } => {
                self.check_parent(parent.as_ref())?;
                self.insert(&key, kind, parent, labels, None)
            }
            Call::CreateRemote { name, parent, labels, slot } => {
                self.check_parent(parent.as_ref())?;
                self.insert(&name, Kind::Committed, parent, labels, Some(layer(slot)))
            }
            Call::Commit { key, name, parent, labels, usage } => {
                self.commit(&key, &name, parent, labels, usage)
            }
            Call::Remove { name } => {
                let snapshot = self.get(&name)?.clone();
                if self.snapshots.values().any(|child| child.parent.as_deref() == Some(name.as_str())) {
                    return Err(SnapshotError::HasChild(name));
                }
                self.snapshots.remove(name.as_str());
                Ok(snapshot)
            }
            Call::Update { name, paths, labels } => {
                let mut snapshot = self.get(&name)?.clone();
                if paths.is_empty() {
                    snapshot.labels.clone_from(&labels);
                }
                for path in paths {
                    if path == "labels" {
                        snapshot.labels.clone_from(&labels);
                    } else if let Some(key) = path.strip_prefix("labels.") {
                        snapshot.labels.insert(key.into(), labels.get(key).cloned().unwrap_or_default());
                    } else {
                        return Err(SnapshotError::Immutable { path, name });
                    }
                }
                snapshot.labels.retain(|_, value| !value.is_empty());
                self.snapshots.insert(snapshot.name.clone(), snapshot.clone());
                Ok(snapshot)
            }
            Call::Abort(_) | Call::Restart => unreachable!("not a change"),
        }
    }

    fn commit(
        &mut self,
        key: &Name,
        name: &Name,
        parent: Option<Name>,
        labels: Labels,
        usage: Usage,
    ) -> Result<Shown, SnapshotError> {
        let mut snapshot = self.get(key)?.clone();
        self.check_free(name)?;
        if snapshot.kind != Kind::Active {
            return Err(SnapshotError::NotActive(key.clone()));
        }
        match (&snapshot.parent, parent) {
            (None, Some(parent)) => snapshot.parent = Some(parent.to_string()),
            (Some(old), Some(parent)) if old != parent.as_str() => {
                return Err(SnapshotError::ParentChanged(key.clone()));
            }
            _ => {}
        }
        if let Some(parent) = snapshot.parent.as_deref().map(Name::from) {
            match self.snapshots.get(parent.as_str()) {
                None => return Err(SnapshotError::MissingParent(parent)),
                Some(found) if found.kind != Kind::Committed => {
                    return Err(SnapshotError::CommitParentNotCommitted(parent));
                }
                Some(_) => {}
            }
        }
        self.snapshots.remove(key.as_str());
        let id = snapshot.id;
        let committed = self.put(name, Kind::Committed, snapshot.parent.map(Name::from), labels, None, id);
        let committed = Shown { usage, ..committed };
        self.snapshots.insert(name.to_string(), committed.clone());
        Ok(committed)
    }

    fn get(&self, name: &Name) -> Result<&Shown, SnapshotError> {
        self.snapshots.get(name.as_str()).ok_or_else(|| SnapshotError::Missing(name.clone()))
    }

    fn check_parent(&self, parent: Option<&Name>) -> Result<(), SnapshotError> {
        match parent.map(|parent| (parent, self.snapshots.get(parent.as_str()))) {
            None => Ok(()),
            Some((parent, None)) => Err(SnapshotError::MissingParent(parent.clone())),
            Some((_, Some(found))) if found.kind == Kind::Committed => Ok(()),
            Some((parent, Some(_))) => Err(SnapshotError::ParentNotCommitted(parent.clone())),
        }
    }

    fn check_free(&self, name: &Name) -> Result<(), SnapshotError> {
        if name.as_str().is_empty() {
            return Err(SnapshotError::BadName(0));
        }
        match self.snapshots.contains_key(name.as_str()) {
            true => Err(SnapshotError::Exists(name.clone())),
            false => Ok(()),
        }
    }

    fn insert(
        &mut self,
        name: &Name,
        kind: Kind,
        parent: Option<Name>,
        labels: Labels,
        remote: Option<RemoteLayer>,
    ) -> Result<Shown, SnapshotError> {
        self.check_free(name)?;
        self.last += 1;
        Ok(self.put(name, kind, parent, labels, remote, self.last))
    }

    fn put(
        &mut self,
        name: &Name,
        kind: Kind,
        parent: Option<Name>,
        mut labels: Labels,
        remote: Option<RemoteLayer>,
        id: u64,
    ) -> Shown {
        labels.retain(|_, value| !value.is_empty());
        let parent = parent.map(|parent| parent.to_string());
        let shown =
            Shown { name: name.to_string(), id, kind, parent, labels, usage: Usage::default(), remote };
        self.snapshots.insert(name.to_string(), shown.clone());
        shown
    }
}
