//! A daemon that is killed loses nothing that it has confirmed, and what it lists can be mounted.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proto::snapshots::{
    CleanupRequest, CommitSnapshotRequest, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, snapshots_client::SnapshotsClient,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

const ROUNDS: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_confirmed_is_lost() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: the daemon wants root");
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        println!("skipped: the daemon wants /dev/fuse");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    // Names to parents, as the daemon has confirmed them; and the one that it may or may not have done.
    let mut confirmed = BTreeMap::new();
    let mut serial = 0;
    for round in 0..ROUNDS {
        let mut daemon = start(root.path());
        let client = connect(root.path()).await;
        let until = Instant::now() + Duration::from_millis(60 + 23 * round);
        let work = work(client, &mut confirmed, &mut serial);
        let open = tokio::time::timeout(until - Instant::now(), work).await;
        assert!(open.is_err(), "the work never ends by itself");
        daemon.kill().unwrap();
        daemon.wait().unwrap();

        let mut daemon = start(root.path());
        let client = connect(root.path()).await;
        check(client, root.path(), &mut confirmed).await;
        // Unmounts, where a kill would leave the mount to the next start.
        kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(daemon.wait().unwrap().success());
    }
    assert!(confirmed.len() > 5, "{} snapshots are no test", confirmed.len());
}

/// Makes and removes snapshots until it is stopped, noting what was confirmed.
async fn work(
    mut client: SnapshotsClient<Channel>,
    confirmed: &mut BTreeMap<String, State>,
    serial: &mut u64,
) {
    loop {
        *serial += 1;
        let (key, name) = (format!("key {serial}"), format!("name {serial}"));
        let parent =
            confirmed.iter().find(|(name, state)| name.starts_with("name") && **state == State::There);
        let parent =
            parent.map(|(name, _)| name.clone()).filter(|_| !serial.is_multiple_of(3)).unwrap_or_default();
        confirmed.insert(key.clone(), State::Unknown);
        let request = PrepareSnapshotRequest { key: key.clone(), parent, ..Default::default() };
        client.prepare(request).await.unwrap();
        confirmed.insert(key.clone(), State::There);
        match *serial % 4 {
            0 => {
                confirmed.insert(key.clone(), State::Unknown);
                client
                    .remove(RemoveSnapshotRequest { key: key.clone(), ..Default::default() })
                    .await
                    .unwrap();
                confirmed.insert(key, State::Gone);
                client.cleanup(CleanupRequest::default()).await.unwrap();
            }
            1 => {}
            _ => {
                confirmed.insert(key.clone(), State::Unknown);
                confirmed.insert(name.clone(), State::Unknown);
                let request =
                    CommitSnapshotRequest { name: name.clone(), key: key.clone(), ..Default::default() };
                client.commit(request).await.unwrap();
                confirmed.insert(key, State::Gone);
                confirmed.insert(name, State::There);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    There,
    Gone,
    Unknown,
}

/// Compares what is listed with what was confirmed, and mounts with directories.
async fn check(mut client: SnapshotsClient<Channel>, root: &Path, confirmed: &mut BTreeMap<String, State>) {
    let mut stream = client.list(ListSnapshotsRequest::default()).await.unwrap().into_inner();
    let mut listed = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        listed.extend(message.info);
    }
    for (name, state) in confirmed.iter_mut() {
        let there = listed.iter().any(|info| info.name == *name);
        match state {
            State::There => assert!(there, "{name} was confirmed and is lost"),
            State::Gone => assert!(!there, "{name} was removed and is back"),
            State::Unknown => *state = if there { State::There } else { State::Gone },
        }
    }
    client.cleanup(CleanupRequest::default()).await.unwrap();
    for info in &listed {
        if info.kind() == proto::snapshots::Kind::Committed {
            continue;
        }
        let request = MountsRequest { key: info.name.clone(), ..Default::default() };
        let mounts = client.mounts(request).await.unwrap().into_inner().mounts;
        for option in mounts.iter().flat_map(|mount| mount.options.iter().chain([&mount.source])) {
            for path in option.split(['=', ':']).filter(|text| text.starts_with('/')) {
                assert!(Path::new(path).is_dir(), "{path} of {} is missing", info.name);
            }
        }
    }
    let directories = std::fs::read_dir(root.join("data/snapshotter/snapshots")).unwrap().count();
    assert_eq!(directories, listed.len(), "one directory for each snapshot");
}

fn start(root: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starlingd"));
    command.arg("--address").arg(root.join("s.sock")).arg("--root").arg(root.join("data"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

async fn connect(root: &Path) -> SnapshotsClient<Channel> {
    let address = root.join("s.sock");
    let endpoint = Endpoint::from_static("http://socket");
    for _ in 0..1000 {
        let address = address.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let address = address.clone();
            async move { UnixStream::connect(address).await.map(TokioIo::new) }
        });
        if let Ok(channel) = endpoint.connect_with_connector(connector).await {
            return SnapshotsClient::new(channel);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the daemon does not listen");
}
