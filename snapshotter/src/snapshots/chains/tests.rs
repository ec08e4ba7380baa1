//! Which directories an overlay is given for lazy layers, and when a chain goes.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use fusefs::Slot;
use parking_lot::Mutex;
use store::LayerKey;

use super::*;
use crate::{
    lazy::{
        Absence, Chain, FallBack, FallBackReason, Labels, LazyLayers, Leftovers, Owner, RemoteLayer,
        RemoteRequest, Unavailable, Usage,
    },
    metadata::Kind,
    snapshots::{SnapshotsConfig, Storage, TARGET_LABEL},
};

/// Serves any layer whose target begins with `lazy`, in slots from 1 on, and chains from 100 on.
#[derive(Default)]
struct Merging {
    layers: AtomicU32,
    slots: AtomicU32,
    shown: Mutex<BTreeSet<Slot>>,
    gone: Mutex<Vec<BTreeSet<Slot>>>,
}

#[async_trait]
impl LazyLayers for Merging {
    async fn prepare(&self, request: RemoteRequest<'_>) -> Result<RemoteLayer, FallBack> {
        if !request.target.starts_with("lazy") {
            return Err(FallBack { reason: "as the test wants it".into(), code: FallBackReason::Disabled });
        }
        let digest = estargz::Digest::of(request.target.as_bytes());
        let slot = Slot::new(self.layers.fetch_add(1, SeqCst) + 1).unwrap();
        Ok(RemoteLayer { key: LayerKey { blob: digest, toc: digest }, slot })
    }

    fn lower_dir(&self, layer: &RemoteLayer, _: Absence) -> Result<PathBuf, Unavailable> {
        Ok(format!("/l/{}", layer.slot).into())
    }

    fn chain_slot(&self) -> Option<Slot> {
        Slot::new(self.slots.fetch_add(1, SeqCst) + 100)
    }

    fn chain_dir(&self, chain: &Chain, absence: Absence) -> Result<PathBuf, Unavailable> {
        self.shown.lock().insert(chain.slot);
        let layers: Vec<_> = chain.layers.iter().map(|layer| layer.slot.to_string()).collect();
        let mount = if absence == Absence::NoData { "l" } else { "p" };
        Ok(format!("/{mount}/{}={}", chain.slot, layers.join("+")).into())
    }

    fn chains(&self) -> BTreeSet<Slot> {
        self.shown.lock().clone()
    }

    fn root_owner(&self, _: &RemoteLayer) -> Result<Owner, Unavailable> {
        Ok(Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() })
    }

    fn usage(&self, _: &RemoteLayer) -> Usage {
        Usage::default()
    }

    async fn cleanup(&self, gone: &BTreeSet<Slot>, _: &BTreeSet<LayerKey>) -> Leftovers {
        self.gone.lock().push(gone.clone());
        Box::new(|| {})
    }
}

fn open(root: &Path, layers: &Arc<Merging>) -> Arc<Snapshots> {
    let layers: Arc<dyn LazyLayers> = layers.clone();
    Snapshots::new(Storage::open(root).unwrap(), layers, SnapshotsConfig::default())
}

/// Puts a layer on another, as a pull does; gives its name.
async fn pull(snapshots: &Arc<Snapshots>, target: &str, parent: Option<&Name>) -> Name {
    let labels = Labels::from([(TARGET_LABEL.to_owned(), target.to_owned())]);
    let key = Name::from(format!("extract {target}"));
    if snapshots.prepare(key.clone(), parent.cloned(), labels.clone()).await.is_ok() {
        let name = Name::from(target);
        snapshots.commit(&name, &key, parent, Labels::new()).unwrap();
        return name;
    }
    let mut found = None;
    let parse = crate::filters::Filters::default();
    snapshots
        .list(&parse, |name, record| {
            if record.labels.get(TARGET_LABEL).is_some_and(|label| label == target) {
                found = Some(name);
            }
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    found.unwrap()
}

/// The lower directories of a container on `parent`.
fn lower(snapshots: &Snapshots, key: &str, parent: &Name) -> String {
    let mounts = snapshots.create(Kind::Active, &key.into(), Some(parent), &Labels::new()).unwrap();
    assert_eq!(mounts, snapshots.mounts(&key.into()).unwrap());
    let lower = mounts[0].options.iter().find_map(|option| option.strip_prefix("lowerdir="));
    lower.unwrap().to_owned()
}

#[tokio::test]
async fn lazy_layers_at_the_bottom_are_one_directory_for_everybody_and_for_ever() {
    let (root, layers) = (tempfile::tempdir().unwrap(), Arc::default());
    let snapshots = open(root.path(), &layers);
    let one = pull(&snapshots, "lazy 1", None).await;
    assert_eq!(lower(&snapshots, "alone", &one), "/l/1");
    let two = pull(&snapshots, "lazy 2", Some(&one)).await;
    assert_eq!(lower(&snapshots, "first", &two), "/p/100=2+1");
    assert_eq!(lower(&snapshots, "second", &two), "/p/100=2+1");
    let own = pull(&snapshots, "own", Some(&two)).await;
    let on_own = lower(&snapshots, "third", &own);
    assert!(on_own.ends_with("/fs:/p/100=2+1"), "{on_own}");
    // Nothing may be below a chain, so a lazy layer that lies on another kind is named by itself.
    let above = pull(&snapshots, "lazy 3", Some(&own)).await;
    let above = pull(&snapshots, "lazy 4", Some(&above)).await;
    assert_eq!(lower(&snapshots, "fourth", &above), format!("/l/4:/l/3:{on_own}"));
    drop(snapshots);
    let snapshots = open(root.path(), &layers);
    assert_eq!(lower(&snapshots, "fifth", &two), "/p/100=2+1");
    let recorded = snapshots.storage.chains().unwrap();
    assert_eq!(recorded.iter().map(|chain| chain.slot.get()).collect::<Vec<_>>(), [100]);
}

#[tokio::test]
async fn a_chain_goes_with_the_snapshot_that_it_ends_in() {
    let (root, layers) = (tempfile::tempdir().unwrap(), Arc::default());
    let snapshots = open(root.path(), &layers);
    let one = pull(&snapshots, "lazy 1", None).await;
    let two = pull(&snapshots, "lazy 2", Some(&one)).await;
    let three = pull(&snapshots, "lazy 3", Some(&two)).await;
    assert_eq!(lower(&snapshots, "on two", &two), "/p/100=2+1");
    assert_eq!(lower(&snapshots, "on three", &three), "/p/101=3+2+1");
    snapshots.cleanup().await.unwrap();
    snapshots.remove(&"on three".into()).unwrap();
    snapshots.remove(&three).unwrap();
    snapshots.cleanup().await.unwrap();
    let gone = layers.gone.lock().clone();
    assert_eq!(gone, [BTreeSet::new(), BTreeSet::from([Slot::new(101).unwrap()])]);
    assert_eq!(lower(&snapshots, "on two again", &two), "/p/100=2+1");
}

#[tokio::test]
async fn buildkit_is_given_what_says_precisely_that_an_attribute_is_missing() {
    let (root, layers) = (tempfile::tempdir().unwrap(), Arc::default());
    let snapshots = open(root.path(), &layers);
    let one = pull(&snapshots, "lazy 1", None).await;
    let two = pull(&snapshots, "lazy 2", Some(&one)).await;
    let container = "c5ad0e5aa3d2c4d1a0f1d54a8b0e1c5ad0e5aa3d2c4d1a0f1d54a8b0e1c5ad0e";
    for (key, mount) in [
        ("moby/12/f5lxx1zz5pnorynqglhzmsp33", "l"),
        ("buildkit/7/0123456789abcdefghijklmno", "l"),
        ("moby/8/f5lxx1zz5pnorynqglhzmsp34-view", "l"),
        ("moby/9/sha256:c5ad0e5aa3d2c4d1-view", "l"),
        (&format!("moby/13/{container}"), "p"),
        (&format!("moby/14/{container}-init"), "p"),
        ("default/15/my-container-with-25-lett", "p"),
        ("f5lxx1zz5pnorynqglhzmsp3", "p"),
    ] {
        assert_eq!(lower(&snapshots, key, &two), format!("/{mount}/100=2+1"), "{key}");
    }
}
