//! Hits, misses, windows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use estargz::{NodeId, write};
use store::{Class, Store, StoreConfig};

use crate::{
    background::complete,
    blob::{Blob, node},
    memory::{Dir, Memory, Wire, settled},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_becomes_a_hit() {
    let blob = Blob::new(&[("a", 100_000), ("b", 5), ("empty", 0)], 30_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let layer = dir.open().open_layer(blob.key, source.clone()).await.unwrap();
    let a = node(&layer, "a");
    let mut buf = vec![0; 1000];
    assert_eq!(layer.read_cached(a, 500, &mut buf).unwrap(), None);
    assert_eq!(layer.read(a, 500, 1000).await.unwrap(), blob.truth("a")[500..1500]);
    assert_eq!(layer.read_cached(a, 500, &mut buf).unwrap(), Some(1000));
    assert_eq!(buf, blob.truth("a")[500..1500]);
    assert_eq!(layer.read(a, 99_990, 1000).await.unwrap(), blob.truth("a")[99_990..]);
    assert_eq!(layer.read_cached(a, 99_990, &mut buf).unwrap(), Some(10));
    assert_eq!(layer.read_cached(a, 100_000, &mut buf).unwrap(), Some(0));
    assert_eq!(layer.read(node(&layer, "b"), 0, 100).await.unwrap(), *blob.truth("b"));
    assert_eq!(layer.read(node(&layer, "empty"), 0, 100).await.unwrap().len(), 0);
    assert!(layer.read(NodeId::ROOT, 0, 10).await.is_err());
    assert_eq!(source.requests().len(), 1);
    complete(&layer).await;
    let stats = layer.stats();
    assert_eq!((stats.requests, stats.chunks_present), (1, stats.chunks_total));
    // What is still being decoded when it is asked for counts as a miss, too.
    assert!(stats.misses >= 1 && stats.hits >= 2, "{stats:?}");
    assert_eq!((stats.bytes_present, stats.bytes_total), (100_005, 100_005));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_chunk_share_one_request() {
    let blob = Blob::new(&[("a", 100_000)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    source.state.lock().latency = Duration::from_millis(50);
    let layer = dir.open().open_layer(blob.key, source.clone()).await.unwrap();
    let a = node(&layer, "a");
    let readers: Vec<_> = (0..50usize)
        .map(|reader| {
            let layer = Arc::clone(&layer);
            tokio::spawn(async move { (reader, layer.read(a, reader as u64 * 7, 1000).await.unwrap()) })
        })
        .collect();
    // Some give up, which takes nothing from the others.
    readers.iter().step_by(7).for_each(tokio::task::JoinHandle::abort);
    for reader in readers {
        if let Ok((reader, bytes)) = reader.await {
            assert_eq!(bytes, blob.truth("a")[reader * 7..reader * 7 + 1000]);
        }
    }
    assert_eq!(source.requests().len(), 1);
    assert_eq!(layer.chunks_in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_bring_neighbours_and_grow_in_order() {
    let blob = Blob::small_files(600, 8000);
    let dir = Dir::new();
    let source = Memory::new(&blob);
    let store = Store::open(StoreConfig { max_window: 2 << 20, ..dir.config() }).unwrap();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    for (name, data) in &blob.files {
        assert_eq!(layer.read(node(&layer, name), 0, data.len()).await.unwrap(), *data);
    }
    let requests = source.requests();
    assert!(requests.len() < 12, "{} requests for 600 files", requests.len());
    let longest = requests.iter().map(|(range, _)| range.end - range.start).max().unwrap();
    assert!(longest > 1 << 20, "the longest window has {longest} bytes");
    let received: u64 = requests.iter().map(|(range, _)| range.end - range.start).sum();
    assert!(received <= blob.bytes.len() as u64);
}

/// That the link is slow is known from the end of the blob, before anything is missed, also if it is read by itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_window_is_short_on_a_slow_link() {
    let blob = Blob::small_files(600, 8000);
    let mut first = Vec::new();
    let slow = || Some(Wire::new(Duration::from_millis(10)));
    for (at_first, then) in [(None, None), (slow(), None), (None, slow())] {
        let (dir, source) = (Dir::new(), Memory::new(&blob));
        source.state.lock().wire = at_first;
        // The background would have the response go on behind the window.
        let store = Store::open(StoreConfig { background: false, ..dir.config() }).unwrap();
        let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
        if then.is_some() {
            source.state.lock().wire = then;
            store.read_tail(source.as_ref(), store::TAIL_LEN).await.unwrap();
        }
        layer.read(node(&layer, "file0300"), 0, 8000).await.unwrap();
        let (range, _) = source.requests()[0].clone();
        first.push(range.end - range.start);
    }
    assert!(first[0] > 3 * first[1] && first[0] > 3 * first[2], "first windows of {first:?} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_members_and_landmarks() {
    let options = write::Options { pack_size: 64 << 10, prioritized: vec!["p".into()], ..Default::default() };
    let blob = Blob::with(&[("a", 9000), ("b", 5000), ("c", 1), ("p", 3000)], &options);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let layer = dir.open().open_layer(blob.key, source.clone()).await.unwrap();
    layer.start_prefetch(store::PlanId(0), 0);
    let p = node(&layer, "p");
    let mut buf = [0; 3000];
    for _ in 0..500 {
        if layer.read_cached(p, 0, &mut buf).unwrap().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(buf, blob.truth("p"));
    assert_eq!(source.requests()[0].1, Class::Prefetch);
    for (name, data) in &blob.files {
        assert_eq!(layer.read(node(&layer, name), 0, data.len()).await.unwrap(), *data);
    }
}

/// More chunks in one member than a window looks at on each side of a miss.
#[tokio::test(flavor = "multi_thread")]
async fn members_of_thousands_of_files_are_read_from_the_middle() {
    for count in [3000, 10_000] {
        let names: Vec<_> = (0..count).map(|number| format!("file{number:05}")).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), 40)).collect();
        let blob = Blob::with(&files, &write::Options { pack_size: 1 << 30, ..Default::default() });
        let (dir, source) = (Dir::new(), Memory::new(&blob));
        let store = dir.open();
        let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
        let middle = names[count / 2].as_str();
        assert_eq!(layer.read(node(&layer, middle), 0, 40).await.unwrap(), *blob.truth(middle));
        layer.start_background();
        complete(&layer).await;
        for (name, data) in blob.files.iter().step_by(97) {
            assert_eq!(layer.read(node(&layer, name), 0, 40).await.unwrap(), *data);
        }
        let stats = layer.stats();
        assert_eq!((stats.verify_failures, stats.last_error), (0, None));
        assert!(source.requests().len() <= 3, "{:?}", source.requests());
        settled(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_longer_than_memory_is_streamed() {
    let blob = Blob::new(&[("big", 40 << 20), ("small", 1000)], 1 << 30);
    let dir = Dir::new();
    let source = Memory::new(&blob);
    let store = Store::open(StoreConfig { memory_budget: 1 << 20, ..dir.config() }).unwrap();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    let big = node(&layer, "big");
    assert_eq!(layer.read(big, 39 << 20, 100).await.unwrap(), blob.truth("big")[39 << 20..(39 << 20) + 100]);
    let mut buf = vec![0; 40 << 20];
    assert_eq!(layer.read_cached(big, 0, &mut buf).unwrap(), Some(40 << 20));
    assert!(buf == blob.truth("big"));
    assert_eq!(layer.read(node(&layer, "small"), 0, 1000).await.unwrap(), *blob.truth("small"));
    settled(&store).await;
}

/// What they inflate to is not there yet, and the memory for it is of use to those that arrive.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_arrive_take_memory_for_their_compressed_bytes() {
    const LEN: usize = 300_000;
    let blob = Blob::new(&[("a", LEN), ("b", LEN), ("c", LEN)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let alone = StoreConfig { background: false, min_window: 1, max_window: 1, ..dir.config() };
    let store = Store::open(StoreConfig { memory_budget: 6 * LEN as u64, ..alone }).unwrap();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    source.state.lock().per_piece = Duration::from_millis(50);
    let readers: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            let (layer, file) = (Arc::clone(&layer), node(&layer, name));
            tokio::spawn(async move { layer.read(file, 0, LEN).await.unwrap() })
        })
        .into();
    let began = Instant::now();
    while store.memory_in_use() < 3 * LEN as u64 {
        assert!(began.elapsed() < Duration::from_secs(10), "{} bytes", store.memory_in_use());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(store.memory_in_use() < 3 * LEN as u64 + 10_000, "{} bytes", store.memory_in_use());
    for (reader, name) in readers.into_iter().zip(["a", "b", "c"]) {
        assert_eq!(reader.await.unwrap(), *blob.truth(name));
    }
    settled(&store).await;
}

/// What an earlier start left behind: a stretch that is longer than any window.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_in_order_has_what_it_needs_ahead_of_it_behind_what_is_here() {
    let name = |number: usize| format!("file{number:04}");
    let (blob, dir) = (Blob::small_files(90, 60_000), Dir::new());
    let alone = StoreConfig { background: false, min_window: 1, max_window: 1, ..dir.config() };
    let store = Store::open(alone).unwrap();
    let layer = store.open_layer(blob.key, Memory::new(&blob)).await.unwrap();
    for number in 30..60 {
        layer.read(node(&layer, &name(number)), 0, 10).await.unwrap();
    }
    store.flush();
    drop((layer, store));

    let small = StoreConfig { background: false, max_window: 200 << 10, ..dir.config() };
    let store = Store::open(small).unwrap();
    let source = Memory::new(&blob);
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    // The reader comes to each window before its bytes do.
    source.state.lock().wire = Some(Wire::new(Duration::from_millis(20)));
    let far =
        layer.index().chunk(layer.index().chunks_of(node(&layer, &name(60)), 0..1).unwrap().next().unwrap());
    let far = far.unwrap().member_start;
    for number in 0..30 {
        layer.read(node(&layer, &name(number)), 0, 60_000).await.unwrap();
    }
    settled(&store).await;
    let behind: Vec<_> = source.requests().into_iter().filter(|(range, _)| range.start >= far).collect();
    assert!(behind.iter().any(|(_, class)| *class == Class::ReadAhead), "{far}: {:?}", source.requests());
    let bytes: u64 = behind.iter().map(|(range, _)| range.end - range.start).sum();
    assert!(bytes < 400 << 10, "more than is read soon: {behind:?}");
}

/// What an earlier start left behind: every second file is here, each longer than what is received once more to save a request.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_in_order_does_not_wait_at_each_hole() {
    const FILES: usize = 80;
    let name = |number: usize| format!("file{number:04}");
    let (blob, dir) = (Blob::small_files(FILES, 60_000), Dir::new());
    let alone = StoreConfig { background: false, min_window: 1, max_window: 1, ..dir.config() };
    let store = Store::open(alone).unwrap();
    let layer = store.open_layer(blob.key, Memory::new(&blob)).await.unwrap();
    for number in (0..FILES).step_by(2) {
        layer.read(node(&layer, &name(number)), 0, 10).await.unwrap();
    }
    assert_eq!(layer.stats().chunks_present, FILES as u64 / 2);
    store.flush();
    drop((layer, store));

    let store = Store::open(StoreConfig { background: false, ..dir.config() }).unwrap();
    let source = Memory::new(&blob);
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    let latency = Duration::from_millis(30);
    source.state.lock().latency = latency;
    let began = Instant::now();
    for number in 0..FILES {
        let read = layer.read(node(&layer, &name(number)), 0, 60_000).await.unwrap();
        assert_eq!(read, *blob.truth(&name(number)));
    }
    assert!(began.elapsed() < latency * FILES as u32 / 4, "{:?}", began.elapsed());
    let ahead = source.requests().iter().filter(|(_, class)| *class == Class::ReadAhead).count();
    assert!(ahead >= FILES / 4, "{ahead} requests of {}", source.requests().len());
    settled(&store).await;
}
