//! What a source does wrong ends in the right bytes or an error, in bounded time.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use store::{Layer, ReadError, Store, StoreConfig};

use crate::{
    blob::{Blob, node},
    memory::{Dir, Fault, Memory, settled},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_stays_wrong_is_an_error() {
    let blob = Blob::new(&[("a", 50_000), ("b", 50_000)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    source.set(Fault::Flip(20_000));
    let error = layer.read(node(&layer, "a"), 0, 10).await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
    assert_eq!(source.distrusted.load(SeqCst), 3);
    assert_eq!(source.requests().len(), 3);
    assert_eq!(layer.stats().verify_failures, 3);
    assert!(layer.stats().last_error.unwrap().contains("digest") || layer.chunks_in_flight() == 0);
    assert_eq!(layer.read(node(&layer, "b"), 0, 50_000).await.unwrap(), *blob.truth("b"));
    source.set(Fault::None);
    assert_eq!(layer.read(node(&layer, "a"), 0, 50_000).await.unwrap(), *blob.truth("a"));
    settled(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_mirror_is_passed_over() {
    for len in [50_000, 20 << 20] {
        let blob = Blob::new(&[("a", len)], 1 << 30);
        let (dir, source) = (Dir::new(), Memory::new(&blob));
        let layer = dir.open().open_layer(blob.key, source.clone()).await.unwrap();
        source.set(Fault::Flip(30_000));
        source.state.lock().honest_once_distrusted = true;
        assert!(layer.read(node(&layer, "a"), 0, len).await.unwrap() == blob.truth("a"));
        assert_eq!((source.distrusted.load(SeqCst), source.requests().len()), (1, 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_down_fails_reads_and_is_not_hammered() {
    let blob = Blob::small_files(20, 50_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    source.set(Fault::Down);
    let began = Instant::now();
    for _ in 0..4 {
        let error = layer.read(node(&layer, "file0000"), 0, 10).await.unwrap_err();
        assert!(matches!(error, ReadError::Source(_)), "{error}");
    }
    assert!(began.elapsed() >= Duration::from_millis(600), "asked again after {:?}", began.elapsed());
    assert!(layer.stats().last_error.unwrap().contains("the origin is down"));
    source.set(Fault::None);
    assert_eq!(layer.read(node(&layer, "file0000"), 0, 10).await.unwrap(), blob.truth("file0000")[..10]);
    settled(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_gives_what_came() {
    let blob = Blob::small_files(10, 20_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let layer = dir.open().open_layer(blob.key, source.clone()).await.unwrap();
    source.state.lock().next = vec![Fault::CutAfter(45_000)];
    assert_eq!(layer.read(node(&layer, "file0000"), 0, 20_000).await.unwrap(), *blob.truth("file0000"));
    assert_eq!(layer.read(node(&layer, "file0009"), 0, 20_000).await.unwrap(), *blob.truth("file0009"));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_is_bounded() {
    let blob = Blob::new(&[("a", 100_000)], 4 << 20);
    for fault in [Fault::Hang, Fault::HangAfter(0), Fault::HangAfter(20_000)] {
        let (dir, source) = (Dir::new(), Memory::new(&blob));
        let timeout = Duration::from_millis(300);
        let store = Store::open(StoreConfig { read_timeout: timeout, ..dir.config() }).unwrap();
        let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
        source.set(fault);
        let began = Instant::now();
        let error = layer.read(node(&layer, "a"), 0, 10).await.unwrap_err();
        assert!(matches!(error, ReadError::TimedOut(_)), "{error}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        settled(&store).await;
        source.set(Fault::None);
        assert_eq!(layer.read(node(&layer, "a"), 0, 10).await.unwrap(), blob.truth("a")[..10]);
    }
}

/// As the kernel has those ask who wait for one page. What they do not wait for is the whole bound each, nor is anybody
/// refused when the origin is back.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_ask_after_a_read_gave_up_wait_for_a_moment_unless_something_comes() {
    let blob = Blob::small_files(60, 30_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let limit = Duration::from_secs(4);
    let store = Store::open(StoreConfig { read_timeout: limit, ..dir.config() }).unwrap();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    let read = async |name: &str| {
        let began = Instant::now();
        let read = layer.read(node(&layer, name), 0, 10).await;
        (read.map(|bytes| assert_eq!(bytes, blob.truth(name)[..10])).is_ok(), began.elapsed())
    };
    source.set(Fault::Hang);
    let (first, second, third) = (read("file0000").await, read("file0000").await, read("file0000").await);
    assert!(!first.0 && first.1 >= limit, "{first:?}");
    for (worked, took) in [second, third] {
        assert!(!worked && took < limit * 3 / 4, "{took:?}");
    }
    // What nobody gave up on is waited for, and what comes of it is an answer.
    source.state.lock().latency = limit * 5 / 8;
    source.set(Fault::None);
    assert!(read("file0050").await.0);
    source.set(Fault::Hang);
    let (worked, took) = read("file0000").await;
    assert!(!worked && took >= limit, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joined_request_that_hangs_is_made_once_more() {
    for fault in [Fault::Hang, Fault::HangAfter(0), Fault::HangAfter(20_000)] {
        let blob = Blob::new(&[("a", 100_000)], 4 << 20);
        let (dir, source) = (Dir::new(), Memory::new(&blob));
        let store = dir.open();
        let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
        source.state.lock().next = vec![fault];
        let began = Instant::now();
        let readers = readers(&layer, 5).await;
        for reader in readers {
            assert_eq!(reader.await.unwrap().unwrap(), blob.truth("a")[..10]);
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        assert_eq!(source.requests().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hedge_is_asked_for_once_and_a_time_out_not_inherited() {
    let blob = Blob::new(&[("a", 100_000)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let limit = Duration::from_secs(3);
    let store = Store::open(StoreConfig { read_timeout: limit, ..dir.config() }).unwrap();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    source.state.lock().next = vec![Fault::Hang, Fault::Hang];
    let mut first = readers(&layer, 1).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let joined = readers(&layer, 5).await;
    tokio::time::sleep(Duration::from_millis(1800)).await;
    assert_eq!(source.requests().len(), 2);
    // The first request has run out of time, those who joined it have not.
    assert!(matches!(first.remove(0).await.unwrap(), Err(ReadError::TimedOut(_))));
    for reader in joined {
        assert_eq!(reader.await.unwrap().unwrap(), blob.truth("a")[..10]);
    }
    assert_eq!(source.requests().len(), 3);
}

type Reader = tokio::task::JoinHandle<Result<bytes::Bytes, ReadError>>;

/// Reads of one chunk, the first of which asks for it.
async fn readers(layer: &Arc<Layer>, count: usize) -> Vec<Reader> {
    let mut readers = Vec::new();
    for _ in 0..count {
        let (layer, file) = (Arc::clone(layer), node(layer, "a"));
        readers.push(tokio::spawn(async move { layer.read(file, 0, 10).await }));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    readers
}
