//! The store against a model of containerd's: random calls, equal answers, with and without restarts.

mod crash;
mod model;

use std::ops::ControlFlow;

use proptest::{collection::vec, option, prelude::*, sample::select};

use self::model::{Model, Shown};
use super::*;
use crate::{
    filters::Filters,
    lazy::{Labels, RemoteLayer, Usage},
    name::Name,
};

/// One call.
#[derive(Debug, Clone)]
enum Call {
    Create {
        kind: Kind,
        key: Name,
        parent: Option<Name>,
        labels: Labels,
    },
    CreateRemote {
        name: Name,
        parent: Option<Name>,
        labels: Labels,
        slot: u32,
    },
    Commit {
        key: Name,
        name: Name,
        parent: Option<Name>,
        labels: Labels,
        usage: Usage,
    },
    Remove {
        name: Name,
    },
    Update {
        name: Name,
        paths: Vec<String>,
        labels: Labels,
    },
    /// A change that is given up after its calls were made.
    Abort(Vec<Call>),
    Restart,
}

fn name() -> impl Strategy<Value = Name> {
    select(vec!["a", "b", "c", "d", "e", "default/1/sha256:aa", "/abs/path with space", ""])
        .prop_map(Name::from)
}

fn parent() -> impl Strategy<Value = Option<Name>> {
    option::weighted(0.6, select(vec!["a", "b", "c", "d", "e"]).prop_map(Name::from))
}

fn labels() -> impl Strategy<Value = Labels> {
    let key = select(vec!["l1", "containerd.io/snapshot.ref", "a.b/c.d"]).prop_map(str::to_owned);
    let value = select(vec!["", "v1", "v2"]).prop_map(str::to_owned);
    proptest::collection::btree_map(key, value, 0..3)
}

fn paths() -> impl Strategy<Value = Vec<String>> {
    let path = select(vec!["labels", "labels.l1", "labels.a.b/c.d", "labels.", "parent", "name"]);
    vec(path.prop_map(str::to_owned), 0..3)
}

fn usage() -> impl Strategy<Value = Usage> {
    (0..9u64, 0..9u64).prop_map(|(size, inodes)| Usage { size, inodes })
}

fn change() -> impl Strategy<Value = Call> {
    let kind = prop_oneof![4 => Just(Kind::Active), 1 => Just(Kind::View)];
    prop_oneof![
        4 => (kind, name(), parent(), labels())
            .prop_map(|(kind, key, parent, labels)| Call::Create { kind, key, parent, labels }),
        2 => (name(), parent(), labels(), 1..99u32)
            .prop_map(|(name, parent, labels, slot)| Call::CreateRemote { name, parent, labels, slot }),
        5 => (name(), name(), option::weighted(0.2, name()), labels(), usage())
            .prop_map(|(key, name, parent, labels, usage)| Call::Commit { key, name, parent, labels, usage }),
        3 => name().prop_map(|name| Call::Remove { name }),
        2 => (name(), paths(), labels()).prop_map(|(name, paths, labels)| Call::Update { name, paths, labels }),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        12 => change(),
        1 => vec(change(), 1..4).prop_map(Call::Abort),
        1 => Just(Call::Restart),
    ]
}

fn layer(slot: u32) -> RemoteLayer {
    let digest = estargz::Digest::of(&slot.to_le_bytes());
    RemoteLayer { key: store::LayerKey { blob: digest, toc: digest }, slot: fusefs::Slot::new(slot).unwrap() }
}

/// Makes a call on the store, inside a transaction.
fn apply(change: &mut Change<'_>, call: &Call) -> Result<Shown, SnapshotError> {
    let (name, record) = match call.clone() {
        Call::Create { kind, key, parent, labels } => {
            let record = change.create(kind, &key, parent.as_ref(), labels)?;
            (key, record)
        }
        Call::CreateRemote { name, parent, labels, slot } => {
            change.create_remote(|_| name, parent.as_ref(), labels, layer(slot))?
        }
        Call::Commit { key, name, parent, labels, usage } => {
            let record = change.commit(&key, &name, parent.as_ref(), labels, usage)?;
            (name, record)
        }
        Call::Remove { name } => {
            let record = change.remove(&name)?;
            (name, record)
        }
        Call::Update { name, paths, labels } => {
            let record = change.update(&name, &paths, &labels)?;
            (name, record)
        }
        Call::Abort(_) | Call::Restart => unreachable!("not a change"),
    };
    assert!(record.created <= record.updated);
    Ok(Shown::of(&name, &record))
}

fn listed(metadata: &Metadata) -> Vec<Shown> {
    let mut listed = Vec::new();
    let view = metadata.view().unwrap();
    view.walk(&Filters::default(), |name, record| {
        listed.push(Shown::of(&name, &record));
        ControlFlow::Continue(())
    })
    .unwrap();
    let ids: Vec<u64> = view.ids().unwrap().into_iter().map(|id| id.get()).collect();
    let mut expected: Vec<u64> = listed.iter().map(|shown| shown.id).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected, "the index of children names each snapshot once");
    listed
}

fn text(result: Result<Shown, SnapshotError>) -> Result<Shown, String> {
    result.map_err(|error| format!("{:?}: {error}", error.class()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn answers_and_lists_as_containerds_store_does(calls in vec(call(), 1..60)) {
        // In memory: what is tested here is the meaning, and a disk would make each case wait for sixty syncs.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = directory.path().join("metadata.redb");
        let mut metadata = Some(Metadata::open(&path, 0).unwrap());
        let mut model = Model::default();
        for call in calls {
            let store = metadata.as_ref().unwrap();
            match &call {
                Call::Restart => {
                    drop(metadata.take());
                    metadata = Some(Metadata::open(&path, 0).unwrap());
                }
                Call::Abort(calls) => {
                    let mut aborted = model.clone();
                    let result = store.change(|change| {
                        for call in calls {
                            let result = text(apply(change, call));
                            assert_eq!(result, text(aborted.apply(call)), "{call:?}");
                            if result.is_err() {
                                break;
                            }
                        }
                        Err::<(), _>(SnapshotError::Stopping)
                    });
                    prop_assert!(result.is_err());
                }
                call => {
                    let mut changed = model.clone();
                    let expected = changed.apply(call);
                    if expected.is_ok() {
                        model = changed;
                    }
                    prop_assert_eq!(text(store.change(|change| apply(change, call))), text(expected), "{:?}", call);
                }
            }
            let store = metadata.as_ref().unwrap();
            prop_assert_eq!(listed(store), model.listed());
            for name in model.names() {
                let record = store.view().unwrap().get(&name).unwrap();
                let chain = store.view().unwrap().chain(record.parent.as_ref()).unwrap();
                let chain: Vec<u64> = chain.iter().map(|below| below.id.get()).collect();
                prop_assert_eq!(chain, model.chain(&name));
            }
        }
    }
}

#[test]
fn numbers_are_above_those_that_directories_carry() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    let create = |metadata: &Metadata, key: &str| {
        metadata
            .change(|change| change.create(Kind::Active, &key.into(), None, Labels::new()))
            .unwrap()
            .id
            .get()
    };
    assert_eq!(create(&Metadata::open(&path, 41).unwrap(), "a"), 42);
    assert_eq!(create(&Metadata::open(&path, 7).unwrap(), "b"), 43);
}

#[test]
fn a_newer_layout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    let metadata = Metadata::open(&path, 0).unwrap();
    let transaction = metadata.database.begin_write().unwrap();
    transaction.open_table(NUMBERS).unwrap().insert(SCHEMA_KEY, SCHEMA + 1).unwrap();
    transaction.commit().unwrap();
    drop(metadata);
    let error = Metadata::open(&path, 0).unwrap_err();
    assert!(matches!(error, OpenError::Schema { found, .. } if found == SCHEMA + 1), "{error}");
}

#[test]
fn a_reader_keeps_its_state_while_others_write() {
    let directory = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(&directory.path().join("metadata.redb"), 0).unwrap();
    let create = |key: &str| {
        metadata.change(|change| change.create(Kind::Active, &key.into(), None, Labels::new())).unwrap();
    };
    create("a");
    let before = metadata.view().unwrap();
    create("b");
    assert_eq!(before.ids().unwrap().len(), 1);
    assert!(before.find(&"b".into()).unwrap().is_none());
    let mut seen = 0;
    let walk = before.walk(&Filters::default(), |_, _| {
        create("c");
        seen += 1;
        ControlFlow::Continue(())
    });
    walk.unwrap();
    assert_eq!((seen, metadata.view().unwrap().ids().unwrap().len()), (1, 3));
}

/// The daemon was killed, or the power went, while the file was made for the first time.
#[test]
fn a_first_start_that_was_cut_off_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    fs::write(path.with_extension("new"), [0; 8192]).unwrap();
    drop(Metadata::open(&path, 0).unwrap());
    assert!(path.exists() && !path.with_extension("new").exists());
}
