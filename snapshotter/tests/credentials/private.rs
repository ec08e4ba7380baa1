//! What the daemon makes on disk is for its own user alone, but for the roots of containers.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use testkit::{requires, skip_unless};

use super::{basic, cri, cri::Containerd, image, is_lazy, node::Node, proxied, registry};

/// Everything in `directory` and below, of its own file system: what is mounted shows what an image says. What
/// containers write is left out.
fn everything(directory: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let of = |path: &Path| fs::symlink_metadata(path).unwrap();
    let (mut all, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    let device = of(directory).dev();
    while let Some(directory) = directories.pop() {
        if !is_of_container(&directory) {
            let below = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
            let below = below.map(|path| (of(&path), path)).filter(|(stat, _)| stat.dev() == device);
            directories.extend(below.filter_map(|(stat, path)| {
                let more = stat.is_dir().then(|| path.clone());
                if more.is_none() {
                    all.push((path, stat));
                }
                more
            }));
        }
        let stat = of(&directory);
        all.push((directory, stat));
    }
    all
}

/// Whether this is one of the two directories of an ordinary snapshot, to which containers and overlayfs get by a mount.
fn is_of_container(path: &Path) -> bool {
    let below = path.ancestors().nth(2).is_some_and(|above| above.ends_with("snapshotter/snapshots"));
    below && (path.ends_with("fs") || path.ends_with("work"))
}

fn expected(path: &Path, stat: &fs::Metadata) -> u32 {
    match () {
        () if is_of_container(path) && path.ends_with("fs") => 0o755,
        () if is_of_container(path) => 0o711,
        () if path.ends_with("credentials/key") => 0o400,
        () if stat.is_dir() => 0o700,
        () => 0o600,
    }
}

/// Checks all that is in the daemon's root and in the directory of `socket`; the number of containers' directories.
fn check(node: &Node, socket: &Path) -> usize {
    let mut all = everything(&node.daemon.root());
    assert!(all.len() > 15, "{all:?}");
    all.extend(everything(socket.parent().unwrap()));
    all.extend([node.daemon.address(), node.daemon.admin()].map(|path| {
        let stat = fs::symlink_metadata(&path).unwrap();
        (path, stat)
    }));
    for (path, stat) in &all {
        let mode = stat.permissions().mode() & 0o7777;
        assert_eq!(mode, expected(path, stat), "{} has mode {mode:o}", path.display());
    }
    all.iter().filter(|(path, _)| is_of_container(path)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_and_socket_is_for_its_owner_only() {
    skip_unless!(requires::fuse());
    let directory = tempfile::tempdir().unwrap();
    let _containerd = Containerd::start(&directory.path().join("containerd.sock")).await;
    let (good, hopeless) = (registry(basic("p")), registry(basic("unknown")));
    let (image, other) = (image(&good, 1), image(&hopeless, 2));
    // The directory of this socket is the daemon's to make.
    let socket = directory.path().join("state/cri.sock");
    let config = proxied(directory.path(), false) + &format!("listen_path = {socket:?}\n");
    let mut node = Node::start(&config).await;
    cri::pull(&socket, &image.reference, "me", "p").await.unwrap();
    assert!(is_lazy(&mut node, &image).await, "{}", node.daemon.log());
    assert!(node.read(&image.layers[0]) == image.layers[0].files);
    assert!(!is_lazy(&mut node, &other).await);
    assert_eq!(check(&node, &socket), 2, "a layer that fell back has a directory");
    node.restart(Signal::SIGKILL).await;
    assert_eq!(check(&node, &socket), 2);
}
