//! The disk that layers take: listed, pruned, verified, and kept within its bounds.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use nix::sys::statvfs::statvfs;
use snapshotter::admin::{ask_cache, ask_prune, ask_verify};
use testkit::{requires, skip_unless};

use super::{
    image,
    node::{Node, ON_DEMAND},
    registry,
};

#[tokio::test(flavor = "multi_thread")]
async fn unused_layers_stay_if_that_is_wanted_and_go_when_there_is_no_room() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let first = image(&registry, "unused", 2);
    let mut node = Node::start("[cache]\nkeep_unused = true\n").await;
    let names = node.pull(&first).await;
    node.eventually("the background completes the layers", |node| {
        node.status().layers.iter().all(|layer| layer.background == "complete")
    })
    .await;
    let admin = node.daemon.admin();
    let listed = ask_cache(&admin).unwrap();
    assert!(
        listed.len() == 2 && listed.iter().all(|layer| layer.in_use && layer.bytes > 900_000),
        "{listed:?}"
    );
    let lowest = first.layers[0].blob.to_string();
    let lowest = listed.iter().find(|layer| layer.blob == lowest).unwrap().bytes;
    assert_eq!(node.usage(&names[0]).await, i64::try_from(lowest).unwrap());
    assert!(ask_prune(&admin, 0).unwrap().layers.is_empty());

    for name in names.iter().rev() {
        node.remove(name).await;
    }
    node.cleanup().await;
    let listed = ask_cache(&admin).unwrap();
    assert!(listed.len() == 2 && listed.iter().all(|layer| !layer.in_use), "{listed:?}");
    assert!(node.status().layers.is_empty());

    // They come back without the registry sending anything but what names them.
    registry.clear_requests();
    let names = node.pull(&first).await;
    let blobs = registry.requests().iter().filter(|request| request.path.contains("/blobs/sha256")).count();
    assert!(blobs <= 1, "{:#?}", registry.requests());
    assert!(first.layers.iter().all(|layer| node.read(layer) == layer.files));
    for name in names.iter().rev() {
        node.remove(name).await;
    }
    node.cleanup().await;
    let half = listed.iter().map(|layer| layer.bytes).sum::<u64>() - 1;
    assert_eq!(ask_prune(&admin, half).unwrap().layers.len(), 1);
    let pruned = ask_prune(&admin, 0).unwrap();
    assert!(pruned.layers.len() == 1 && pruned.bytes > 900_000, "{pruned:?}");
    assert!(ask_cache(&admin).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_quota_nothing_is_kept_and_everything_is_served() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "large", 2);
    let mut node = Node::start(&format!("{ON_DEMAND}[cache]\nquota = 4096\n")).await;
    node.pull(&image).await;
    node.eventually("the daemon sees that there is no room", |node| !node.status().cache.keeping).await;
    assert!(image.layers.iter().all(|layer| node.read(layer) == layer.files));
    let status = node.status();
    assert!(status.layers.iter().all(|layer| layer.files.bytes_present == 0), "{status:?}");
    assert!(status.cache.why_not.is_some_and(|why| why.contains("all that they may")));
    assert!(node.metrics().contains("starling_cache_keeping 0"));
    assert!(node.daemon.log().contains("is served and not kept"));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_disk_is_found_and_mended_while_the_layer_is_served() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "damaged", 1);
    let mut node = Node::start("").await;
    node.pull(&image).await;
    node.eventually("the background completes the layer", |node| {
        node.status().layers.iter().all(|layer| layer.background == "complete")
    })
    .await;
    let admin = node.daemon.admin();
    let key = ask_cache(&admin).unwrap()[0].key.clone();
    let content = node.daemon.root().join("layers").join(&key).join("content");
    let content = File::options().read(true).write(true).open(content).unwrap();
    content.sync_all().unwrap();
    let mut byte = [0];
    content.read_exact_at(&mut byte, 1000).unwrap();
    content.write_all_at(&[!byte[0]], 1000).unwrap();
    content.sync_all().unwrap();
    assert!(node.read(&image.layers[0]) != image.layers[0].files, "the kernel has the wrong byte now");
    let found = ask_verify(&admin, &key, 0).unwrap();
    assert_eq!((found.damaged.len(), found.next), (1, None));
    node.eventually("the chunk is fetched again", |node| {
        node.status().layers.iter().all(|layer| layer.background == "complete")
    })
    .await;
    assert!(ask_verify(&admin, &key, 0).unwrap().damaged.is_empty());
    assert!(node.metrics().contains("starling_damaged_chunks_total 1"));
    assert!(node.read(&image.layers[0]) == image.layers[0].files);
    let unknown = ask_verify(&admin, "none", 0).unwrap_err().to_string();
    assert!(unknown.contains("no layer none"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_in_use_give_back_what_no_start_reads_if_that_is_wanted() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "unread", 2);
    let mut node = Node::start("[cache]\nquota = 1200000\nevict_unread = true\n").await;
    node.pull(&image).await;
    node.eventually("layers give back what nobody read", |node| {
        let cache = node.status().cache;
        cache.given_back_bytes > 0 && cache.keeping && cache.bytes <= 1_200_000
    })
    .await;
    assert!(image.layers.iter().all(|layer| node.read(layer) == layer.files));
    let metrics = node.metrics();
    let given = metrics.lines().find(|line| line.starts_with("starling_given_back_bytes")).unwrap();
    assert!(given.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 0.0, "{given}");
}

/// Takes what is free of a file system until no more than `left` bytes are.
fn fill(path: &Path, left: u64) {
    let mut filler = File::options().create(true).append(true).open(path).unwrap();
    let free = || statvfs(path).map(|stat| stat.blocks_available() * stat.fragment_size()).unwrap();
    while left == 0 || free() > left {
        match filler.write_all(&[1; 64 << 10]) {
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            written => written.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_a_free_block_fails_no_read_and_is_used_again_when_it_has_some() {
    skip_unless!(requires::fuse());
    let registry = registry();
    let image = image(&registry, "full", 3);
    let mut node = Node::start_on_small_disk(32 << 20, ON_DEMAND).await;
    node.pull(&image).await;
    let filler = node.daemon.root().join("filler");
    // The daemon looks every two seconds: it has just looked when what follows meets the full disk.
    fill(&filler, 6 << 20);
    node.eventually("the daemon looks at the disk", |node| node.status().cache.free_bytes < 7 << 20).await;
    fill(&filler, 0);
    assert!(node.read(&image.layers[0]) == image.layers[0].files);
    assert!(node.daemon.log().contains("No space left on device"), "{}", node.daemon.log());

    node.eventually("the daemon sees that the disk is full", |node| !node.status().cache.keeping).await;
    assert!(node.read(&image.layers[1]) == image.layers[1].files);
    let status = node.status();
    assert!(status.layers.iter().all(|layer| layer.files.bytes_present == 0), "{status:?}");
    assert!(status.cache.why_not.is_some_and(|why| why.contains("nearly full")));
    assert!(status.cache.uncached_chunks > 0 && node.metrics().contains("starling_cache_keeping 0"));

    fs::remove_file(&filler).unwrap();
    node.eventually("the daemon sees that there is room", |node| node.status().cache.keeping).await;
    assert!(node.read(&image.layers[2]) == image.layers[2].files);
    let kept = node.layer(&image.layers[2]).unwrap().files;
    assert_eq!(kept.bytes_present, kept.bytes_total);
    assert!(node.metrics().contains("starling_cache_keeping 1"));
}
