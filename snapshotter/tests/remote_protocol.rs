//! The remote protocol, as containerd's metadata store, its garbage collection and BuildKit speak it, over a real gRPC
//! connection. What serves the layers is made up.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "remote_protocol/fake.rs"]
mod fake;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use fake::{Daemon, PANICS, eventually, layer, lower_dir, map};
use proto::snapshots::{
    Info, Kind, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest, StatSnapshotRequest,
    UpdateSnapshotRequest, UsageRequest,
};
use snapshotter::{
    lazy::FallBackReason,
    snapshots::{REMOTE_LABEL, REMOTE_LABEL_VALUE, SnapshotsConfig, TARGET_LABEL},
};
use tokio::sync::Notify;
use tonic::Code;

/// More than many HTTP/2 servers allow at once on a connection: containerd has only one.
const HANGING: usize = 300;
const LAYER_DIGEST: &str = "containerd.io/snapshot/cri.layer-digest";

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_layer_is_there_already_and_containerd_finds_it() {
    let daemon = Daemon::start().await;
    daemon.layers.add("sha256:base", 1);
    let status = daemon
        .prepare(
            "default/1/extract-1 sha256:base",
            "",
            &[(TARGET_LABEL, "sha256:base"), ("containerd.io/snapshot/x", "kept")],
        )
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::AlreadyExists, r#"target snapshot "sha256:base": already exists"#)
    );

    let info = daemon.look_up("sha256:base", "").await;
    assert_eq!(info.labels[REMOTE_LABEL], REMOTE_LABEL_VALUE);
    assert_eq!(info.labels["containerd.io/snapshot/x"], "kept");
    assert_eq!(daemon.list(&[]).await.len(), 1, "the key of the Prepare is not a snapshot");

    // Again, from another namespace: nothing is opened.
    let again = daemon.pull("k8s.io/7/extract-2 sha256:base", "", "sha256:base").await;
    assert_eq!(again.name, info.name);
    assert_eq!(*daemon.layers.asked.lock(), ["sha256:base"]);
    assert_eq!(*daemon.layers.ended.lock(), [("sha256:base".into(), None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_chain_id_on_two_parents_is_two_snapshots() {
    let daemon = Daemon::start().await;
    let (base, top) = ("sha256:base", "sha256:top");
    daemon.layers.add(top, 2);
    // One namespace has unpacked the base in the ordinary way, the other has it lazily.
    daemon.prepare("k8s.io/4/extract", "", &[]).await.unwrap();
    daemon.commit("k8s.io/5/sha256:base", "k8s.io/4/extract", &[]).await.unwrap();
    daemon.layers.add(base, 1);
    let remote = daemon.pull("default/1/extract", "", base).await;

    let a = daemon.pull("k8s.io/6/extract", "k8s.io/5/sha256:base", top).await;
    let b = daemon.pull("default/2/extract", &remote.name, top).await;
    assert_ne!(a.name, b.name);

    let mounts = daemon.prepare("default/3/container", &b.name, &[]).await.unwrap();
    let lower = format!("lowerdir={}:{}", lower_dir(&layer(2)).display(), lower_dir(&layer(1)).display());
    assert!(mounts[0].options.contains(&lower), "{mounts:?}");
    let mounts = daemon.prepare("k8s.io/7/container", &a.name, &[]).await.unwrap();
    let ordinary = format!("{}/snapshotter/snapshots/1/fs", daemon.root.path().display());
    let lower = format!("lowerdir={}:{ordinary}", lower_dir(&layer(2)).display());
    assert!(mounts[0].options.contains(&lower), "{mounts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn children_go_first_and_cleanup_leaves_nothing() {
    let daemon = Daemon::start().await;
    let mut names: Vec<String> = Vec::new();
    for number in 1..=3 {
        let target = format!("sha256:{number}");
        daemon.layers.add(&target, number);
        let parent = names.last().cloned().unwrap_or_default();
        names.push(daemon.pull(&format!("default/{number}/extract"), &parent, &target).await.name);
    }
    daemon.prepare("default/9/container", &names[2], &[]).await.unwrap();

    let status = daemon.remove(&names[0]).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("remove"), "{status}");
    daemon.cleanup().await;
    let all: BTreeSet<_> = (1..=3).map(|number| layer(number).key).collect();
    assert_eq!(daemon.layers.cleanups.lock().last(), Some(&all));

    daemon.remove("default/9/container").await.unwrap();
    for name in names.iter().rev() {
        daemon.remove(name).await.unwrap();
    }
    assert_eq!(daemon.directories().len(), 1, "Remove leaves the directory to Cleanup");
    daemon.cleanup().await;
    assert_eq!(daemon.layers.cleanups.lock().last(), Some(&BTreeSet::new()));
    assert!(daemon.directories().is_empty() && daemon.list(&[]).await.is_empty());
    assert_eq!(daemon.remove(&names[0]).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fall_back_is_an_ordinary_writable_snapshot() {
    let daemon = Daemon::start().await;
    let labels = [(TARGET_LABEL, "sha256:plain")];
    let mounts = daemon.prepare("default/1/extract", "", &labels).await.unwrap();
    assert_eq!((mounts[0].r#type.as_str(), mounts[0].options.join(",").as_str()), ("bind", "rw,rbind"));
    assert_eq!(*daemon.layers.ended.lock(), [("sha256:plain".into(), Some(FallBackReason::NotFound))]);

    std::fs::write(format!("{}/file", mounts[0].source), "unpacked").unwrap();
    daemon.commit("default/2/sha256:plain", "default/1/extract", &labels).await.unwrap();
    assert_eq!(daemon.look_up("sha256:plain", "").await.name, "default/2/sha256:plain");

    // A lazy layer stands on an unpacked one, and the other way round.
    daemon.layers.add("sha256:lazy", 5);
    let lazy = daemon.pull("default/3/extract", "default/2/sha256:plain", "sha256:lazy").await;
    let mounts =
        daemon.prepare("default/4/extract", &lazy.name, &[(TARGET_LABEL, "sha256:top")]).await.unwrap();
    let lower = format!("lowerdir=/l/5:{}/snapshotter/snapshots/1/fs", daemon.root.path().display());
    assert_eq!(mounts[0].options[2], lower);
    assert!(!mounts[0].options.contains(&"ro".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_ends_with_its_deadline() {
    let daemon = Daemon::start_with(SnapshotsConfig { prepare_timeout: Duration::from_millis(200) }).await;
    daemon.layers.add("sha256:slow", 1);
    *daemon.layers.gate.lock() = Some(Arc::new(Notify::new()));
    let began = Instant::now();
    let mounts = daemon.prepare("default/1/extract", "", &[(TARGET_LABEL, "sha256:slow")]).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(mounts[0].options, ["rw", "rbind"]);
    assert_eq!(*daemon.layers.ended.lock(), [("sha256:slow".into(), Some(FallBackReason::Deadline))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_trips_over_a_bug_falls_back() {
    let daemon = Daemon::start().await;
    let mounts = daemon.prepare("default/1/extract", "", &[(TARGET_LABEL, PANICS)]).await.unwrap();
    assert_eq!(mounts[0].options, ["rw", "rbind"]);
    assert_eq!(*daemon.layers.ended.lock(), [(PANICS.into(), Some(FallBackReason::Local))]);
    daemon.cleanup().await;
    assert_eq!(daemon.layers.cleanups.lock().len(), 1, "nothing stays locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_outlive_a_restart_without_asking_anyone() {
    let mut daemon = Daemon::start().await;
    daemon.layers.add("sha256:base", 3);
    let base = daemon.pull("default/1/extract", "", "sha256:base").await;
    daemon.prepare("default/2/container", &base.name, &[]).await.unwrap();
    let before = sorted(daemon.list(&[]).await);
    // A directory that a crash left behind, with the next number.
    std::fs::create_dir_all(daemon.root.path().join("snapshotter/snapshots/3/fs/left")).unwrap();

    daemon.restart().await;
    assert_eq!(sorted(daemon.list(&[]).await), before);
    daemon.pull("default/3/extract", "", "sha256:base").await;
    let mounts = daemon.prepare("default/4/container", &base.name, &[]).await.unwrap();
    assert!(mounts[0].options.contains(&"lowerdir=/l/3".to_owned()), "{mounts:?}");
    assert!(mounts[0].options[1].ends_with("/4/fs"), "3 was taken: {mounts:?}");
    assert!(daemon.layers.asked.lock().is_empty());
    eventually("the leftover goes", || !daemon.directories().contains(&"3".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_hangs_does_not_keep_the_daemon_from_ending() {
    let mut daemon = Daemon::start().await;
    *daemon.layers.gate.lock() = Some(Arc::new(Notify::new()));
    let mut client = daemon.client.clone();
    let hanging = tokio::spawn(async move {
        let labels = map(&[(TARGET_LABEL, "sha256:slow")]);
        client.prepare(PrepareSnapshotRequest { key: "a".into(), labels, ..Default::default() }).await
    });
    eventually("it hangs", || !daemon.layers.asked.lock().is_empty()).await;
    let began = Instant::now();
    daemon.stop().await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    hanging.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_of_a_layer_that_cannot_be_served_are_unavailable() {
    let daemon = Daemon::start().await;
    daemon.layers.add("sha256:base", 1);
    let base = daemon.pull("default/1/extract", "", "sha256:base").await;
    daemon.prepare("default/2/container", &base.name, &[]).await.unwrap();
    daemon.layers.detached.store(true, Ordering::SeqCst);
    let request = MountsRequest { key: "default/2/container".into(), ..MountsRequest::default() };
    let status = daemon.client.clone().mounts(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let status = daemon.prepare("default/3/container", &base.name, &[]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(daemon.list(&["name==\"default/3/container\""]).await, [], "nothing is left of it");
    assert_eq!(daemon.directories().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn prepares_of_one_target_at_once_are_one_snapshot() {
    let daemon = Arc::new(Daemon::start().await);
    daemon.layers.add("sha256:base", 1);
    let pulls = (0..8).map(|number| {
        let daemon = Arc::clone(&daemon);
        tokio::spawn(async move {
            daemon.pull(&format!("default/{number}/extract"), "", "sha256:base").await.name
        })
    });
    let mut names = BTreeSet::new();
    for pull in pulls.collect::<Vec<_>>() {
        names.insert(pull.await.unwrap());
    }
    assert_eq!((names.len(), daemon.list(&[]).await.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_id_that_names_two_layers_is_unpacked() {
    let daemon = Daemon::start().await;
    daemon.layers.add("sha256:chain", 1);
    daemon.pull("evil/1/extract", "", "sha256:chain").await;
    let honest = layer(2).key.blob.to_string();
    let labels = [(TARGET_LABEL, "sha256:chain"), (LAYER_DIGEST, honest.as_str())];
    let mounts = daemon.prepare("default/1/extract", "", &labels).await.unwrap();
    assert_eq!(mounts[0].options, ["rw", "rbind"]);
    assert_eq!(
        daemon.layers.ended.lock().last(),
        Some(&("sha256:chain".into(), Some(FallBackReason::TargetDiffers)))
    );
    // The same layer again is no other one.
    let same = layer(1).key.blob.to_string();
    let labels = [(TARGET_LABEL, "sha256:chain"), (LAYER_DIGEST, same.as_str())];
    assert_eq!(
        daemon.prepare("default/2/extract", "", &labels).await.unwrap_err().code(),
        Code::AlreadyExists
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_not_deleted_while_one_is_being_opened() {
    let daemon = Arc::new(Daemon::start().await);
    daemon.layers.add("sha256:base", 1);
    let gate = Arc::new(Notify::new());
    *daemon.layers.gate.lock() = Some(Arc::clone(&gate));
    let pulling = tokio::spawn({
        let daemon = Arc::clone(&daemon);
        async move { daemon.pull("default/1/extract", "", "sha256:base").await }
    });
    eventually("the layer is being opened", || !daemon.layers.asked.lock().is_empty()).await;
    daemon.cleanup().await;
    assert!(daemon.layers.cleanups.lock().is_empty());
    gate.notify_one();
    pulling.await.unwrap();
    // What had to wait is done afterwards, and knows the new layer.
    eventually("the deletion goes on", || !daemon.layers.cleanups.lock().is_empty()).await;
    assert_eq!(*daemon.layers.cleanups.lock(), [BTreeSet::from([layer(1).key])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_nothing_locked() {
    let daemon = Daemon::start().await;
    *daemon.layers.gate.lock() = Some(Arc::new(Notify::new()));
    let labels = [(TARGET_LABEL, "sha256:base")];
    let gone = daemon.prepare("default/1/extract", "", &labels);
    assert!(tokio::time::timeout(Duration::from_millis(100), gone).await.is_err());
    *daemon.layers.gate.lock() = None;
    for _ in 0..100 {
        daemon.cleanup().await;
        if !daemon.layers.cleanups.lock().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!daemon.layers.cleanups.lock().is_empty());
    assert!(daemon.list(&[]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn prepares_that_hang_hold_nobody_up() {
    let daemon = Arc::new(Daemon::start().await);
    *daemon.layers.gate.lock() = Some(Arc::new(Notify::new()));
    let hanging: Vec<_> = (0..HANGING)
        .map(|number| {
            let daemon = Arc::clone(&daemon);
            tokio::spawn(async move {
                let target = format!("sha256:{number}");
                let _ = daemon.prepare(&format!("hang/{number}/x"), "", &[(TARGET_LABEL, &target)]).await;
            })
        })
        .collect();
    eventually("all hang", || daemon.layers.asked.lock().len() == HANGING).await;
    let others = async {
        daemon.prepare("default/1/x", "", &[]).await.unwrap();
        daemon.commit("default/2/y", "default/1/x", &[]).await.unwrap();
        assert_eq!(daemon.list(&[]).await.len(), 1);
        daemon.remove("default/2/y").await.unwrap();
        daemon.cleanup().await;
    };
    tokio::time::timeout(Duration::from_secs(5), others).await.unwrap();
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
}

/// `util/estargz/labels.go` and `cache/refs.go`: a target that is no digest, a key with a space, and labels that come and
/// go around each mount.
#[tokio::test(flavor = "multi_thread")]
async fn buildkit_puts_labels_on_and_takes_them_off() {
    let daemon = Daemon::start().await;
    let target = "k1x2j3h4g5f6d7s8a9q0w1e2r";
    daemon.layers.add(target, 1);
    let info = daemon.pull("buildkit/12/tmp-abc123 sha256:chain", "", target).await;
    assert!(info.labels.contains_key(REMOTE_LABEL));

    let extra = "containerd.io/snapshot/remote/stargz.reference.k1x2j3h4g5f6";
    let request = |value: &str| UpdateSnapshotRequest {
        info: Some(Info { name: info.name.clone(), labels: map(&[(extra, value)]), ..Info::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec![format!("labels.{extra}")] }),
        ..UpdateSnapshotRequest::default()
    };
    let mut client = daemon.client.clone();
    let with = client.update(request("ghcr.io/a/b:c")).await.unwrap().into_inner().info.unwrap();
    assert_eq!(with.labels[extra], "ghcr.io/a/b:c");
    assert_eq!(with.labels.len(), info.labels.len() + 1);
    assert_eq!((with.created_at, with.kind), (info.created_at, info.kind));
    let without = client.update(request("")).await.unwrap().into_inner().info.unwrap();
    assert_eq!(without.labels, info.labels);
    assert_eq!(*daemon.layers.asked.lock(), [target], "labels touch no network");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_of_a_remote_layer_is_what_was_fetched() {
    let daemon = Daemon::start().await;
    daemon.layers.add("sha256:base", 7);
    let base = daemon.pull("default/1/extract", "", "sha256:base").await;
    let request = UsageRequest { key: base.name, ..UsageRequest::default() };
    let usage = daemon.client.clone().usage(request).await.unwrap().into_inner();
    assert_eq!((usage.size, usage.inodes), (1007, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_cannot_be_is_an_error_before_anything_is_opened() {
    let daemon = Daemon::start().await;
    daemon.layers.add("sha256:top", 1);
    let labels = [(TARGET_LABEL, "sha256:top")];
    let status = daemon.prepare("default/1/extract", "missing", &labels).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    daemon.prepare("default/2/extract", "", &[]).await.unwrap();
    let status = daemon.prepare("default/1/extract", "default/2/extract", &labels).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = daemon.prepare("default/2/extract", "", &labels).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::AlreadyExists, r#"snapshot "default/2/extract": already exists"#)
    );
    assert!(daemon.layers.asked.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_in_messages_of_a_hundred_and_blocks_nobody() {
    let daemon = Daemon::start().await;
    let mut parent = String::new();
    for number in 1..=450 {
        let target = format!("sha256:{number}");
        daemon.layers.add(&target, number);
        parent = daemon.pull(&format!("default/{number}/extract"), &parent, &target).await.name;
    }
    let sizes: Vec<usize> = daemon.list_messages(&[]).await.iter().map(Vec::len).collect();
    assert_eq!(sizes, [100, 100, 100, 100, 50]);

    // While a List waits for its client, others read and write; what it shows is what was there.
    let mut stream = daemon.client.clone().list(ListSnapshotsRequest::default()).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap().info;
    daemon.remove(&parent).await.unwrap();
    let request = StatSnapshotRequest { key: first[0].name.clone(), ..StatSnapshotRequest::default() };
    let stat = daemon.client.clone().stat(request).await.unwrap().into_inner().info.unwrap();
    assert_eq!(stat, first[0]);
    let mut count = first.len();
    while let Some(message) = stream.message().await.unwrap() {
        count += message.info.len();
    }
    assert_eq!(count, 450);

    let request = ListSnapshotsRequest { filters: vec!["name=".into()], ..ListSnapshotsRequest::default() };
    assert_eq!(daemon.client.clone().list(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_may_be_as_large_as_containerds() {
    let daemon = Daemon::start().await;
    let large = "x".repeat(10 << 20);
    daemon.prepare("a", "", &[("containerd.io/snapshot/large", &large)]).await.unwrap();
    let listed = daemon.list(&["kind==active"]).await;
    assert_eq!(listed[0].labels["containerd.io/snapshot/large"].len(), large.len());
    assert_eq!(listed[0].kind(), Kind::Active);
}

fn sorted(mut infos: Vec<Info>) -> Vec<Info> {
    infos.sort_by(|a, b| a.name.cmp(&b.name));
    infos
}
