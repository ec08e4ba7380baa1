//! Completing layers while nobody waits.

use std::{
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

use store::{Class, Layer, Store, StoreConfig};

use crate::{
    blob::{Blob, node},
    memory::{Dir, Fault, Memory},
};

#[tokio::test(flavor = "multi_thread")]
async fn completes_the_layer_and_asks_for_nothing_twice() {
    let blob = Blob::small_files(100, 30_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    layer.read(node(&layer, "file0050"), 0, 10).await.unwrap();
    layer.start_background();
    layer.start_background();
    complete(&layer).await;
    let received: u64 = source.requests().iter().map(|(range, _)| range.end - range.start).sum();
    assert!(received <= blob.bytes.len() as u64);
    source.set(Fault::Down);
    for (name, data) in &blob.files {
        let mut buf = vec![0; data.len()];
        assert_eq!(layer.read_cached(node(&layer, name), 0, &mut buf).unwrap(), Some(data.len()));
        assert_eq!(buf, *data);
    }
    assert_eq!(layer.chunks_in_flight(), 0);
    assert!(layer.stats().background_bytes_fetched > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn goes_on_after_a_failure() {
    let blob = Blob::small_files(40, 30_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let layer = dir.open().open_layer(blob.key, source.clone()).await.unwrap();
    source.state.lock().next = vec![Fault::Down, Fault::CutAfter(100_000)];
    layer.start_background();
    complete(&layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_joins_what_the_background_fetches() {
    let blob = Blob::small_files(50, 30_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    source.state.lock().latency = Duration::from_millis(100);
    let layer = dir.open().open_layer(blob.key, source.clone()).await.unwrap();
    layer.start_background();
    while source.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(layer.read(node(&layer, "file0000"), 0, 30_000).await.unwrap(), *blob.truth("file0000"));
    let requests = source.requests();
    let of_the_file: Vec<_> = requests.iter().filter(|(range, _)| range.start < 10_000).collect();
    assert!(matches!(of_the_file[..], [(_, Class::Background)]), "{requests:?}");
    complete(&layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn begins_nothing_while_somebody_waits() {
    let blob = Blob::small_files(200, 30_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let layer = dir.open().open_layer(blob.key, source.clone()).await.unwrap();
    source.state.lock().per_piece = Duration::from_millis(20);
    let reader = tokio::spawn({
        let layer = Arc::clone(&layer);
        let file = node(&layer, "file0000");
        async move { layer.read(file, 0, 10).await.unwrap() }
    });
    while source.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    layer.start_background();
    reader.await.unwrap();
    let while_waiting = source.requests();
    assert!(while_waiting.iter().all(|(_, class)| *class == Class::Demand), "{while_waiting:?}");
    source.state.lock().per_piece = Duration::ZERO;
    complete(&layer).await;
}

/// A program whose files are here starts once more. It needs the processors, for a while.
#[tokio::test(flavor = "multi_thread")]
async fn stands_back_while_an_image_starts_again() {
    let blob = Blob::small_files(150, 30_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    // Its responses would go on for all of the test.
    let store = Store::open(StoreConfig { background_window: 16 << 20, ..dir.config() }).unwrap();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    source.state.lock().per_piece = Duration::from_millis(10);
    layer.start_background();
    let received = || layer.stats().background_bytes_fetched;
    while received() < 200_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.started_again();
    let (mut last, mut since, began) = (received(), Instant::now(), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        assert!(began.elapsed() < Duration::from_secs(10), "it does not stand back");
        tokio::time::sleep(Duration::from_millis(10)).await;
        if received() != last {
            (last, since) = (received(), Instant::now());
        }
    }
    assert!(layer.stats().chunks_present < layer.stats().chunks_total / 2, "it came to its end");
    assert_eq!(layer.read(node(&layer, "file0140"), 0, 10).await.unwrap(), blob.truth("file0140")[..10]);
    source.state.lock().per_piece = Duration::ZERO;
    complete(&layer).await;
}

/// A background window that stands back for long while its members wait for the rest of the budget.
#[tokio::test(flavor = "multi_thread")]
async fn standing_back_is_no_failure() {
    let (blob, other) =
        (Blob::new(&[("a", 600_000), ("b", 600_000)], 4 << 20), Blob::new(&[("c", 3 << 20)], 4 << 20));
    let (dir, source, slow) = (Dir::new(), Memory::new(&blob), Memory::new(&other));
    let config = StoreConfig { memory_budget: 6 << 20, background_window: 16 << 20, ..dir.config() };
    let store = Store::open(config).unwrap();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    let busy = store.open_layer(other.key, slow.clone()).await.unwrap();
    source.state.lock().latency = Duration::from_millis(200);
    slow.state.lock().per_piece = Duration::from_millis(30);
    layer.start_background();
    while source.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // About six seconds of demand, which also waits for memory.
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (busy, file) = (Arc::clone(&busy), node(&busy, "c"));
            tokio::spawn(async move { busy.read(file, 0, 10).await.unwrap() })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    complete(&layer).await;
    assert_eq!(layer.stats().last_error, None);
    assert_eq!(source.requests().len(), 1);
}

/// An index with a chunk that is nowhere, since it was opened: the rest is fetched.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_costs_its_chunk_only() {
    let blob = Blob::small_files(150, 30_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    let chunk = layer.index().chunks_of(node(&layer, "file0010"), 0..1).unwrap().next().unwrap();
    let digest = *layer.index().chunk(chunk).unwrap().digest.as_bytes();
    let path = dir.files(blob.key).join("index");
    let index = std::fs::read(&path).unwrap();
    let record = index.windows(32).position(|bytes| *bytes == digest).unwrap();
    // A chunk record is its digest, then the number of its member. The map shows what is written to the file.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 4], record as u64 + 32).unwrap();
    for name in ["file0009", "file0011"] {
        assert_eq!(layer.read(node(&layer, name), 0, 30_000).await.unwrap(), *blob.truth(name));
    }
    assert!(layer.read(node(&layer, "file0010"), 0, 10).await.is_err());
    layer.start_background();
    let began = Instant::now();
    while layer.stats().chunks_present < layer.stats().chunks_total - 1 {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", layer.stats());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Threads of idle priority may not run for as long as programs keep the processors busy.
#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_wait_for_idle_threads() {
    let blob = Blob::small_files(60, 30_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = Store::open(StoreConfig { idle_threads: 0, ..dir.config() }).unwrap();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    layer.start_background();
    while layer.stats().background_bytes_fetched < 400_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(layer.stats().chunks_present, 0);
    for (name, data) in &blob.files {
        let read = layer.read(node(&layer, name), 0, data.len());
        let read = tokio::time::timeout(Duration::from_secs(2), read).await;
        assert_eq!(read.unwrap().unwrap(), *data);
    }
}

pub(crate) async fn complete(layer: &Layer) {
    let began = Instant::now();
    while layer.stats().chunks_present < layer.stats().chunks_total {
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", layer.stats());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
