//! A registry that hangs is the matter of those who need it: reads of other layers, other pulls and all that containerd
//! asks go on, however many wait.

use std::{
    fs::{self, File},
    time::{Duration, Instant},
};

use testkit::{
    registry::{Fault, On},
    requires, skip_unless,
};

use super::{
    client::Prepared,
    image::{Image, Layer},
    node::{Node, ON_DEMAND},
    readers::evict,
    registry,
};

/// More than HTTP/2 servers usually take of one client.
const PREPARES: usize = 250;
const READERS: usize = 64;
/// What does not wait for the registry that hangs.
const SOON: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hangs_holds_up_nobody_who_does_not_need_it() {
    skip_unless!(requires::fuse());
    let (good, bad) = (registry(), registry());
    let fine = Image::push(&good, "fine", vec![Layer::new(&good, 1, 4, 300_000)]);
    let other = Image::push(&good, "other", vec![Layer::new(&good, 2, 2, 300_000)]);
    let read = Image::push(&bad, "read", vec![Layer::new(&bad, 3, READERS, 10_000)]);
    let layers = (0..PREPARES).map(|n| Layer::new(&bad, 100 + n as u64, 1, 1000)).collect();
    let hanging = Image::push(&bad, "hanging", layers);
    let limits = "[store]\nread_timeout_sec = 8\n[prepare]\ndeadline_sec = 8\n";
    let mut node = Node::start(&format!("{ON_DEMAND}{limits}")).await;
    node.pull(&fine).await;
    node.pull(&read).await;
    let (shown, truth) = (node.path(&fine.layers[0]), &fine.layers[0].files);
    assert!(fs::read(shown.join("usr/file-0")).unwrap() == truth["usr/file-0"]);

    bad.clear_requests();
    bad.inject(On::Any, Fault::Stall, None);
    let path = node.path(&read.layers[0]);
    let reads = (0..READERS).map(|n| {
        // Each its own file: the kernel has one reader after the other ask for the same page.
        let path = path.join(format!("usr/file-{n}"));
        std::thread::spawn(move || fs::read(path))
    });
    let reads: Vec<_> = reads.collect();
    let prepares = (0..PREPARES).map(|n| {
        let (mut client, labels) = (node.client(), hanging.containerd_labels(n));
        tokio::spawn(async move { client.prepare(&labels, "").await })
    });
    let prepares: Vec<_> = prepares.collect();
    node.eventually("all wait", |node| {
        bad.requests().len() > 4 && node.metrics().contains("starling_fuse_waiting_reads")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let asked = Instant::now();
    evict(&File::open(shown.join("usr/file-0")).unwrap());
    assert!(fs::read(shown.join("usr/file-0")).unwrap() == truth["usr/file-0"], "a hit");
    assert!(fs::read(shown.join("usr/file-1")).unwrap() == truth["usr/file-1"], "a miss");
    assert_eq!(node.list("").await.len(), 2, "what containerd asks, on the connection of those who wait");
    node.pull(&other).await;
    assert!(node.read(&other.layers[0]) == other.layers[0].files);
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert!(prepares.iter().all(|prepare| !prepare.is_finished()));

    for prepare in prepares {
        assert!(matches!(prepare.await.unwrap(), Prepared::Ordinary(_)));
    }
    for read in reads {
        let error = read.join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EIO), "{error}");
    }
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
}
