//! containerd's own metadata store in front of the service: its side of the remote protocol, and its garbage collection.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "remote_protocol/fake.rs"]
#[allow(dead_code)]
mod fake;

use std::{collections::BTreeSet, path::Path};

use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn containerd_finds_what_is_lazy_and_collects_what_is_garbage() {
    if std::process::Command::new("go").arg("version").output().is_err() {
        println!("skipped: there is no go");
        return;
    }
    let daemon = fake::Daemon::start().await;
    daemon.layers.add("sha256:base", 1);
    daemon.layers.add("sha256:top", 2);
    let go = Command::new("go")
        .args(["test", "-count=1", "-run=^TestRemoteProtocol$", "-v", "./suite"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/go"))
        .env("REMOTE_SOCKET", daemon.root.path().join("s.sock"))
        .output()
        .await
        .unwrap();
    let output = String::from_utf8_lossy(&go.stdout);
    assert!(
        go.status.success() && output.contains("--- PASS: TestRemoteProtocol"),
        "{output}\n{}",
        String::from_utf8_lossy(&go.stderr)
    );
    assert!(daemon.directories().is_empty(), "{:?}", daemon.directories());
    assert_eq!(daemon.layers.cleanups.lock().last(), Some(&BTreeSet::new()));
}
