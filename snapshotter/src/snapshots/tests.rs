//! What the suite of containerd and the tests over a connection do not show: directories, owners, usage, failures.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use async_trait::async_trait;
use fusefs::Slot;
use store::LayerKey;
use tempfile::TempDir;

use super::*;
use crate::lazy::{
    Absence, Chain, FallBack, FallBackReason, Leftovers, RemoteLayer, RemoteRequest, Unavailable,
};

/// Serves no layer; those that are recorded belong to user 1234.
struct NoLayers;

#[async_trait]
impl LazyLayers for NoLayers {
    async fn prepare(&self, _: RemoteRequest<'_>) -> Result<RemoteLayer, FallBack> {
        Err(FallBack { reason: "none".into(), code: FallBackReason::Disabled })
    }

    fn lower_dir(&self, layer: &RemoteLayer, _: Absence) -> Result<PathBuf, Unavailable> {
        Ok(format!("/l/{}", layer.slot).into())
    }

    fn chain_dir(&self, chain: &Chain, _: Absence) -> Result<PathBuf, Unavailable> {
        Ok(format!("/l/{}", chain.slot).into())
    }

    fn root_owner(&self, _: &RemoteLayer) -> Result<Owner, Unavailable> {
        Ok(Owner { uid: 1234, gid: 4321 })
    }

    fn usage(&self, _: &RemoteLayer) -> Usage {
        Usage::default()
    }

    async fn cleanup(&self, _: &BTreeSet<Slot>, _: &BTreeSet<LayerKey>) -> Leftovers {
        Box::new(|| {})
    }
}

/// Serves one layer.
struct OneLayer;

#[async_trait]
impl LazyLayers for OneLayer {
    async fn prepare(&self, _: RemoteRequest<'_>) -> Result<RemoteLayer, FallBack> {
        let digest = estargz::Digest::of(b"");
        Ok(RemoteLayer { key: LayerKey { blob: digest, toc: digest }, slot: fusefs::Slot::new(1).unwrap() })
    }

    fn lower_dir(&self, layer: &RemoteLayer, _: Absence) -> Result<PathBuf, Unavailable> {
        NoLayers.lower_dir(layer, Absence::NoData)
    }

    fn chain_dir(&self, chain: &Chain, _: Absence) -> Result<PathBuf, Unavailable> {
        NoLayers.chain_dir(chain, Absence::NoData)
    }

    fn root_owner(&self, layer: &RemoteLayer) -> Result<Owner, Unavailable> {
        NoLayers.root_owner(layer)
    }

    fn usage(&self, _: &RemoteLayer) -> Usage {
        Usage::default()
    }

    async fn cleanup(&self, _: &BTreeSet<Slot>, _: &BTreeSet<LayerKey>) -> Leftovers {
        Box::new(|| {})
    }
}

fn open(root: &Path) -> Arc<Snapshots> {
    Snapshots::new(Storage::open(root).unwrap(), Arc::new(NoLayers), SnapshotsConfig::default())
}

fn fresh() -> (TempDir, Arc<Snapshots>) {
    let root = tempfile::tempdir().unwrap();
    let snapshots = open(root.path());
    (root, snapshots)
}

fn prepare(snapshots: &Snapshots, key: &str, parent: Option<&str>) -> Result<Vec<Mount>, SnapshotError> {
    let parent = parent.map(Name::from);
    snapshots.create(Kind::Active, &key.into(), parent.as_ref(), &Labels::new())
}

fn commit(snapshots: &Snapshots, name: &str, key: &str) {
    snapshots.commit(&name.into(), &key.into(), None, Labels::new()).unwrap();
}

fn upper(snapshots: &Snapshots, name: &str) -> PathBuf {
    snapshots.storage.directories.upper(snapshots.stat(&name.into()).unwrap().id)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn a_child_belongs_to_whom_its_parent_belongs() {
    if !is_root() {
        println!("skipped: changing owners takes root");
        return;
    }
    let (_root, snapshots) = fresh();
    prepare(&snapshots, "a", None).unwrap();
    std::os::unix::fs::chown(upper(&snapshots, "a"), Some(7), Some(8)).unwrap();
    fs::set_permissions(upper(&snapshots, "a"), fs::Permissions::from_mode(0o700)).unwrap();
    commit(&snapshots, "parent", "a");
    prepare(&snapshots, "b", Some("parent")).unwrap();
    let stat = fs::metadata(upper(&snapshots, "b")).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (7, 8, 0o755));

    let labels = Labels::from([("containerd.io/snapshot/uidmapping".into(), "0:100000:65536".into())]);
    snapshots.create(Kind::Active, &"c".into(), Some(&"parent".into()), &labels).unwrap();
    assert_eq!(fs::metadata(upper(&snapshots, "c")).unwrap().uid(), 100_000);
}

#[test]
fn a_child_of_a_remote_layer_belongs_to_whom_its_index_says() {
    if !is_root() {
        println!("skipped: changing owners takes root");
        return;
    }
    let (_root, snapshots) = fresh();
    let digest = estargz::Digest::of(b"");
    let layer =
        RemoteLayer { key: LayerKey { blob: digest, toc: digest }, slot: fusefs::Slot::new(1).unwrap() };
    snapshots
        .storage
        .metadata
        .change(|change| change.create_remote(|_| "remote".into(), None, Labels::new(), layer))
        .unwrap();
    prepare(&snapshots, "a", Some("remote")).unwrap();
    let stat = fs::metadata(upper(&snapshots, "a")).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (1234, 4321));
    assert_eq!(snapshots.storage.in_use().unwrap().layers, BTreeSet::from([layer]));
}

#[test]
fn usage_is_scanned_while_active_and_kept_at_commit() {
    let (_root, snapshots) = fresh();
    prepare(&snapshots, "a", None).unwrap();
    assert_eq!(snapshots.usage(&"a".into()).unwrap().inodes, 1);
    fs::write(upper(&snapshots, "a").join("file"), [1; 8192]).unwrap();
    let active = snapshots.usage(&"a".into()).unwrap();
    assert!(active.inodes == 2 && active.size >= 8192);
    commit(&snapshots, "c", "a");
    fs::write(upper(&snapshots, "c").join("later"), [1; 8192]).unwrap();
    assert_eq!(snapshots.usage(&"c".into()).unwrap(), active);
    snapshots.create(Kind::View, &"v".into(), Some(&"c".into()), &Labels::new()).unwrap();
    assert_eq!(snapshots.usage(&"v".into()).unwrap(), Usage::default());
}

#[test]
fn what_fails_leaves_no_directory_and_no_number() {
    let (root, snapshots) = fresh();
    prepare(&snapshots, "a", None).unwrap();
    assert!(matches!(prepare(&snapshots, "a", None), Err(SnapshotError::Exists(_))));
    assert!(matches!(prepare(&snapshots, "b", Some("a")), Err(SnapshotError::ParentNotCommitted(_))));
    assert!(matches!(prepare(&snapshots, "b", Some("x")), Err(SnapshotError::MissingParent(_))));
    let long = "x".repeat(40_000);
    assert!(matches!(prepare(&snapshots, &long, None), Err(SnapshotError::BadName(40_000))));
    // A parent whose directory is gone: the error names it.
    commit(&snapshots, "c", "a");
    let directory = upper(&snapshots, "c");
    fs::remove_dir_all(&directory).unwrap();
    let error = prepare(&snapshots, "b", Some("c")).unwrap_err();
    assert!(error.to_string().contains(directory.to_str().unwrap()), "{error}");
    assert_eq!(fs::read_dir(root.path().join("snapshots")).unwrap().count(), 1);
    prepare(&snapshots, "b", None).unwrap();
    assert_eq!(snapshots.stat(&"b".into()).unwrap().id.get(), 2);
}

#[test]
fn mounts_are_for_what_can_be_mounted() {
    let (_root, snapshots) = fresh();
    let prepared = prepare(&snapshots, "a", None).unwrap();
    assert_eq!(snapshots.mounts(&"a".into()).unwrap(), prepared);
    commit(&snapshots, "c", "a");
    assert!(matches!(snapshots.mounts(&"c".into()), Err(SnapshotError::NoMounts(_))));
    assert!(matches!(snapshots.mounts(&"x".into()), Err(SnapshotError::Missing(_))));
}

#[test]
fn a_parent_may_be_given_at_commit() {
    let (_root, snapshots) = fresh();
    for key in ["a", "b", "c"] {
        prepare(&snapshots, key, None).unwrap();
    }
    commit(&snapshots, "base", "a");
    let base = Name::from("base");
    snapshots.commit(&"top".into(), &"b".into(), Some(&base), Labels::new()).unwrap();
    assert_eq!(snapshots.stat(&"top".into()).unwrap().parent, Some(base.clone()));
    assert!(matches!(snapshots.remove(&base), Err(SnapshotError::HasChild(_))));
    let error = snapshots.commit(&"d".into(), &"c".into(), Some(&"x".into()), Labels::new()).unwrap_err();
    assert!(matches!(error, SnapshotError::MissingParent(_)));
    prepare(&snapshots, "e", Some("top")).unwrap();
    let error = snapshots.commit(&"d".into(), &"e".into(), Some(&base), Labels::new()).unwrap_err();
    assert!(matches!(error, SnapshotError::ParentChanged(_)));
}

#[tokio::test]
async fn cleanup_deletes_what_was_removed_and_nothing_else() {
    let (root, snapshots) = fresh();
    for key in ["a", "b"] {
        prepare(&snapshots, key, None).unwrap();
        fs::create_dir_all(upper(&snapshots, key).join("deep/er")).unwrap();
    }
    snapshots.remove(&"a".into()).unwrap();
    fs::create_dir(root.path().join("snapshots/new-77")).unwrap();
    assert_eq!(fs::read_dir(root.path().join("snapshots")).unwrap().count(), 3);
    snapshots.cleanup().await.unwrap();
    assert!(upper(&snapshots, "b").join("deep/er").exists());
    assert_eq!(fs::read_dir(root.path().join("snapshots")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_ready_in_time_is_recorded_however_long_that_takes() {
    let root = tempfile::tempdir().unwrap();
    let config = SnapshotsConfig { prepare_timeout: Duration::from_millis(100) };
    let snapshots = Snapshots::new(Storage::open(root.path()).unwrap(), Arc::new(OneLayer), config);
    let (sender, receiver) = std::sync::mpsc::channel();
    let held = Arc::clone(&snapshots);
    let holder = std::thread::spawn(move || {
        held.storage.metadata.frozen(|_| {
            sender.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(600));
            Ok(())
        })
    });
    receiver.recv().unwrap();
    let labels = Labels::from([(TARGET_LABEL.into(), "target".into())]);
    let prepared = snapshots.prepare("key".into(), None, labels).await;
    assert!(matches!(prepared, Err(SnapshotError::TargetExists(_))), "{prepared:?}");
    assert!(matches!(snapshots.stat(&"key".into()), Err(SnapshotError::Missing(_))));
    holder.join().unwrap().unwrap();
}

#[test]
fn a_failure_does_not_touch_the_directory_of_the_next() {
    const ROUNDS: usize = 60;
    let (root, snapshots) = fresh();
    if is_root() {
        // Whoever may not change owners fails half-way; of root's threads these are such.
        std::os::unix::fs::chown(root.path().join("snapshots"), Some(65_534), None).unwrap();
        std::os::unix::fs::chown(root.path(), Some(65_534), None).unwrap();
    }
    let unprivileged = || {
        if is_root() {
            nix::unistd::setfsuid(65_534.into());
        }
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, snapshots) = (&stop, &snapshots);
        let failing = scope.spawn(move || {
            unprivileged();
            let labels =
                Labels::from([("containerd.io/snapshot/uidmapping".into(), "0:100000:65536".into())]);
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                snapshots.create(Kind::Active, &"bad".into(), None, &labels).unwrap_err();
            }
        });
        let working = scope.spawn(move || {
            unprivileged();
            let made = |n: &usize| prepare(snapshots, &format!("good-{n}"), None).is_ok();
            (0..ROUNDS).filter(|n| !made(n)).count()
        });
        let failures = working.join();
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        failing.join().unwrap();
        assert_eq!(failures.unwrap(), 0);
    });
    assert!((0..ROUNDS).all(|n| upper(&snapshots, &format!("good-{n}")).exists()));
}
