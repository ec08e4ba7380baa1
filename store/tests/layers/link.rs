//! Who goes first when several responses come in at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use store::{Class, Store, StoreConfig};

use crate::{
    background::complete,
    blob::{Blob, node},
    memory::{Dir, Memory, Wire, settled},
};

/// A small file, what follows it, and a long file far behind.
fn blob() -> Blob {
    let names: Vec<_> = (0..100).map(|number| format!("file{number:04}")).collect();
    let mut files: Vec<_> = names.iter().map(|name| (name.as_str(), 30_000)).collect();
    files.push(("long", 800_000));
    Blob::new(&files, 4 << 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_takes_the_link_from_what_nobody_waits_for() {
    let blob = blob();
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let layer = dir.open().open_layer(blob.key, source.clone()).await.unwrap();
    source.state.lock().per_piece = Duration::from_millis(5);
    layer.read(node(&layer, "file0000"), 0, 10).await.unwrap();
    assert_eq!(source.requests().len(), 1);
    let before = layer.stats().chunks_present;
    layer.read(node(&layer, "long"), 0, 10).await.unwrap();
    let arrived = layer.stats().chunks_present - before;
    assert!(arrived <= 5, "{arrived} chunks came along while a read waited for another one");
    let stats = layer.stats();
    // What was held back comes when nobody waits any more.
    while layer.stats().chunks_present < before + 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(
        layer.stats().background_bytes_fetched > stats.background_bytes_fetched,
        "what follows a miss is not demand"
    );
    assert!(source.requests().iter().all(|(_, class)| *class == Class::Demand), "with the same requests");
    source.state.lock().per_piece = Duration::ZERO;
    layer.start_background();
    complete(&layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_what_is_held_back_lets_it_go_on() {
    let blob = blob();
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let layer = dir.open().open_layer(blob.key, source.clone()).await.unwrap();
    source.state.lock().per_piece = Duration::from_millis(5);
    layer.read(node(&layer, "file0000"), 0, 10).await.unwrap();
    let long = tokio::spawn({
        let (layer, long) = (layer.clone(), node(&layer, "long"));
        async move { layer.read(long, 0, 10).await.unwrap() }
    });
    while source.requests().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    layer.read(node(&layer, "file0008"), 0, 10).await.unwrap();
    assert!(!long.is_finished(), "both were on their way at once");
    assert_eq!(source.requests().len(), 2);
    long.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_reaches_further_only_if_all_of_the_layer_is_wanted() {
    let blob = blob();
    let mut lengths = Vec::new();
    for background in [false, true] {
        let (dir, source) = (Dir::new(), Memory::new(&blob));
        let store = Store::open(StoreConfig { background, ..dir.config() }).unwrap();
        let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
        layer.read(node(&layer, "file0000"), 0, 10).await.unwrap();
        let (range, _) = source.requests().swap_remove(0);
        lengths.push(range.end - range.start);
    }
    assert!(lengths[0] < 512 << 10 && lengths[1] > 900 << 10, "{lengths:?}");
}

/// A response that waits for memory takes nothing off the link, so that one which has memory must not stand back for it: it is
/// the one that gives memory back.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_memory_leaves_the_link_to_those_who_have_it() {
    let followed = Blob::new(&[("a", 30_000), ("b", 420_000), ("tail", 550_000)], 4 << 20);
    let other = Blob::new(&[("c", 900_000)], 4 << 20);
    let (dir, sources) = (Dir::new(), [Memory::new(&followed), Memory::new(&other)]);
    // Three fifths of it are for what arrives, and of these five eighths for the background: `c`, twice its length, and not the
    // tail besides.
    let store = Store::open(StoreConfig { memory_budget: 5_670_000, ..dir.config() }).unwrap();
    let layer = store.open_layer(followed.key, sources[0].clone()).await.unwrap();
    let completed = store.open_layer(other.key, sources[1].clone()).await.unwrap();
    sources[1].state.lock().per_piece = Duration::from_millis(10);
    completed.start_background();
    while store.memory_in_use() < 1_800_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    layer.read(node(&layer, "a"), 0, 10).await.unwrap();
    let (range, _) = sources[0].requests().swap_remove(0);
    assert!(range.end - range.start > 1_000_000, "the tail is to come with the same response");
    let began = Instant::now();
    complete(&completed).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    settled(&store).await;
}

/// 10 ms and 16 MB/s. How long reads wait while another layer is completed over the same link, and while none is. The reader
/// pauses for longer than the background stands back, so that reads find the link in use.
#[tokio::test(flavor = "multi_thread")]
async fn the_background_delays_no_read_measurably() {
    const READS: usize = 32;
    let (read, completed) = (Blob::small_files(4 * READS, 30_000), Blob::small_files(1200, 30_000));
    let mut waits = Vec::new();
    for background in [false, true] {
        let (dir, wire) = (Dir::new(), Wire::new(Duration::from_millis(1)));
        let sources = [Memory::new(&read), Memory::new(&completed)];
        let config = StoreConfig { min_window: 32 << 10, max_window: 32 << 10, ..dir.config() };
        let store = Store::open(config).unwrap();
        let layer = store.open_layer(read.key, sources[0].clone()).await.unwrap();
        let other = store.open_layer(completed.key, sources[1].clone()).await.unwrap();
        for source in &sources {
            let mut state = source.state.lock();
            (state.latency, state.wire) = (Duration::from_millis(10), Some(Arc::clone(&wire)));
        }
        if background {
            other.start_background();
        }
        let mut of_run = Vec::new();
        for number in 0..READS {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let file = node(&layer, &format!("file{:04}", 4 * number));
            let began = Instant::now();
            layer.read(file, 0, 10).await.unwrap();
            of_run.push(began.elapsed());
        }
        of_run.sort();
        let fetched = other.stats().background_bytes_fetched;
        assert_eq!(background, fetched > 2 << 20, "{fetched} bytes of the background");
        eprintln!(
            "background {background}: p50 {:?}, p90 {:?}, longest {:?}",
            of_run[READS / 2],
            of_run[READS * 9 / 10],
            of_run[READS - 1]
        );
        waits.push(of_run);
    }
    let (without, with) = (waits[0][READS / 2], waits[1][READS / 2]);
    // One piece of the background may be on the wire already.
    assert!(with < without + without / 4 + Duration::from_millis(3), "{without:?} became {with:?}");
}
