//! What one start reads, the next cold start has fetched before it asks.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use estargz::{ChunkId, Digest};
use serde_json::json;
use store::{Access, Class, Layer, LayerKey, PlanId, Store, StoreConfig};

use crate::{
    background::complete,
    blob::{Blob, node},
    memory::{Dir, Fault, Memory, settled},
};

const PLAN: PlanId = PlanId(1);

/// Files that a program reads, far from one another in the blob.
fn program() -> Vec<String> {
    (0..40).map(|n| format!("file{:04}", (n * 77 + 13) % 400)).collect()
}

/// Reads as a program does that thinks for a while between its reads.
async fn start(layer: &Arc<Layer>, blob: &Blob, files: &[String]) {
    for name in files {
        assert_eq!(layer.read(node(layer, name), 0, 20_000).await.unwrap(), *blob.truth(name));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn open(store: &Arc<Store>, blob: &Blob) -> (Arc<Layer>, Arc<Memory>) {
    let source = Memory::new(blob);
    source.state.lock().latency = Duration::from_millis(20);
    (store.open_layer(blob.key, source.clone()).await.unwrap(), source)
}

fn read(layer: &Layer) -> Vec<String> {
    let profile = layer.profile().unwrap();
    let name = |chunk| layer.index().path(layer.index().chunk(chunk).unwrap().node).unwrap();
    profile.accesses().iter().map(|access| String::from_utf8(name(access.chunk)).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_cold_start_waits_less() {
    let blob = Blob::small_files(400, 20_000);
    let (dir, files) = (Dir::new(), program());
    let store = dir.open();
    let (layer, source) = open(&store, &blob).await;
    assert!(!layer.start_plan(PLAN));
    start(&layer, &blob, &files).await;
    assert_eq!(read(&layer), files);
    let recorded = layer.recorded_bytes();
    assert!(
        (800_000..=840_000).contains(&recorded),
        "the members of 40 files that do not compress: {recorded}"
    );
    let (cold, cold_requests) = (layer.stats(), source.requests().len());
    store.remove(&blob.key).unwrap();
    drop(layer);
    assert!(store.keys_on_disk().is_empty());

    let (layer, source) = open(&store, &blob).await;
    assert!(layer.start_plan(PLAN));
    // The program is not there at once.
    tokio::time::sleep(Duration::from_millis(100)).await;
    start(&layer, &blob, &files).await;
    let planned = layer.stats();
    assert!(planned.misses * 4 <= cold.misses, "{} misses, {} without the plan", planned.misses, cold.misses);
    assert!(planned.planned_bytes_fetched > 0);
    let read_bytes = 40 * 20_000;
    let fetched = planned.planned_bytes_fetched + planned.demand_bytes_fetched;
    assert!(fetched <= read_bytes * 3 / 2, "{fetched} bytes for {read_bytes}");
    assert!(source.requests().len() <= cold_requests + 40, "{} requests", source.requests().len());
    settled(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_asks_seldom_for_what_lies_near() {
    let blob = Blob::small_files(400, 20_000);
    let dir = Dir::new();
    let store = dir.open();
    // Of each 25 files the first 20: together 6.4 MB, with 15 gaps of 100 kB.
    let files: Vec<_> = (0..400).filter(|n| n % 25 < 20).map(|n| format!("file{n:04}")).collect();
    let (layer, _) = open(&store, &blob).await;
    start(&layer, &blob, &files).await;
    let recorded = layer.recorded_bytes();
    drop(layer.profile());
    store.remove(&blob.key).unwrap();
    drop(layer);

    let (layer, _) = open(&store, &blob).await;
    assert!(layer.start_plan(PLAN));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let planned = layer.stats();
    // Each run of files by itself would take 16 requests; windows of 1 MiB, the shortest there are, take 8.
    assert!(planned.planned_requests <= 9, "{} requests", planned.planned_requests);
    assert!(planned.planned_bytes_fetched <= recorded * 4 / 3, "{planned:?} for {recorded}");
    start(&layer, &blob, &files).await;
    assert_eq!(layer.stats().misses, 0);
    settled(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_start_does_not_shorten_a_profile_and_a_restart_keeps_it() {
    let blob = Blob::small_files(100, 20_000);
    let dir = Dir::new();
    let store = dir.open();
    let (layer, source) = open(&store, &blob).await;
    let files: Vec<_> = [50, 3, 99, 20].iter().map(|n| format!("file{n:04}")).collect();
    start(&layer, &blob, &files).await;
    drop((layer, store));

    for _ in 0..2 {
        let store = dir.open();
        let layer = store.attach(blob.key, source.clone()).unwrap().unwrap();
        assert_eq!(read(&layer), files, "after a restart");
        start(&layer, &blob, &files[2..]).await;
        assert_eq!(read(&layer), files, "after a warm start");
    }
    let store = dir.open();
    let layer = store.attach(blob.key, source.clone()).unwrap().unwrap();
    start(&layer, &blob, &["file0001".to_owned()]).await;
    assert_eq!(read(&layer), [files.as_slice(), &["file0001".to_owned()]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_end_a_recording_goes_on_with_the_next_cold_start_only() {
    let blob = Blob::small_files(100, 20_000);
    let dir = Dir::new();
    let config = || StoreConfig { record: Duration::from_millis(50), ..dir.config() };
    let store = Store::open(config()).unwrap();
    let (layer, source) = open(&store, &blob).await;
    let names = |numbers: &[u32]| numbers.iter().map(|n| format!("file{n:04}")).collect::<Vec<_>>();
    start(&layer, &blob, &names(&[70])).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    start(&layer, &blob, &names(&[71])).await;
    assert_eq!(read(&layer), names(&[70]));
    drop((layer, store));
    let store = Store::open(config()).unwrap();
    let layer = store.attach(blob.key, source.clone()).unwrap().unwrap();
    start(&layer, &blob, &names(&[72])).await;
    assert_eq!(read(&layer), names(&[70]), "a program that runs is no start");
    store.remove(&blob.key).unwrap();
    let (layer, _source) = open(&store, &blob).await;
    start(&layer, &blob, &names(&[73])).await;
    assert_eq!(read(&layer).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn recording_can_be_switched_off_and_a_damaged_profile_is_ignored() {
    let blob = Blob::small_files(20, 20_000);
    let dir = Dir::new();
    let store = Store::open(StoreConfig { record: Duration::ZERO, ..dir.config() }).unwrap();
    let (layer, _source) = open(&store, &blob).await;
    start(&layer, &blob, &program()[..0]).await;
    assert_eq!(layer.profile(), None);
    drop((layer, store));
    fs::write(dir.0.path().join("profiles").join(blob.key.to_string()), b"nonsense").unwrap();
    let store = dir.open();
    let (layer, _source) = open(&store, &blob).await;
    assert!(!layer.start_plan(PLAN));
    start(&layer, &blob, &["file0003".to_owned()]).await;
    assert_eq!(read(&layer), ["file0003"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_background_waits_until_the_planned_start_is_over() {
    let blob = Blob::small_files(400, 20_000);
    let (dir, files) = (Dir::new(), program());
    let store = dir.open();
    let (layer, _source) = open(&store, &blob).await;
    start(&layer, &blob, &files).await;
    store.remove(&blob.key).unwrap();
    drop(layer);

    let (layer, source) = open(&store, &blob).await;
    assert!(layer.start_plan(PLAN));
    layer.start_background();
    for name in &files[..12] {
        layer.read(node(&layer, name), 0, 10).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let requests = source.requests();
    assert!(requests.iter().all(|(_, class)| *class != Class::Background), "{requests:?}");
    complete(&layer).await;
}

/// What lies between two runs of files that a plan wants comes with one response, and is not asked for once more.
#[tokio::test(flavor = "multi_thread")]
async fn what_passes_between_planned_files_is_kept() {
    let blob = Blob::small_files(100, 20_000);
    // Three runs of 24 files, with two gaps of 160 kB.
    let files: Vec<_> = (0..88).filter(|n| n % 32 < 24).map(|n| format!("file{n:04}")).collect();
    // It is not if the layer is not wanted whole, and not at once if there is no memory for it.
    for (background, memory_budget, kept) in
        [(false, 20 << 20, 72), (true, 64 << 10, 72), (true, 20 << 20, 88)]
    {
        let dir = Dir::new();
        let store = Store::open(StoreConfig { background, memory_budget, ..dir.config() }).unwrap();
        let (layer, _) = open(&store, &blob).await;
        start(&layer, &blob, &files).await;
        drop(layer.profile());
        store.remove(&blob.key).unwrap();
        drop(layer);

        let (layer, source) = open(&store, &blob).await;
        assert!(layer.start_plan(PLAN));
        while layer.stats().planned_bytes_fetched == 0 || layer.chunks_in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        settled(&store).await;
        assert_eq!(layer.stats().chunks_present, kept);
        layer.start_background();
        if background {
            complete(&layer).await;
            let asked: u64 = source.requests().iter().map(|(range, _)| range.end - range.start).sum();
            assert_eq!(asked > blob.bytes.len() as u64, kept == 72, "{asked} bytes of {}", blob.bytes.len());
            for number in 0..100 {
                let name = format!("file{number:04}");
                assert_eq!(layer.read(node(&layer, &name), 0, 20_000).await.unwrap(), *blob.truth(&name));
            }
        }
    }
}

/// A TOC may say of very many files that they are the same byte of one member. None of them comes with another one, and what
/// lies between two planned files is looked at with the layer locked.
#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_looked_at_once_however_much_of_it_there_is() {
    const SAME: usize = 60_000;
    let (first, last) = (vec![1; 1000], vec![2; 1000]);
    // No file is at the blob's very beginning.
    let members = [&b"tar"[..], &first, b"x", &last].map(testkit::blob::gzip);
    let offset_of = |member: usize| members[..member].iter().map(Vec::len).sum::<usize>();
    let entry = |name: &str, member: usize, data: &[u8]| {
        let (offset, digest) = (offset_of(member), testkit::blob::digest(data));
        json!({"name": name, "type": "reg", "size": data.len(), "offset": offset, "chunkDigest": digest, "digest": digest})
    };
    let mut entries = vec![entry("first", 1, &first)];
    entries.extend((0..SAME).map(|n| entry(&format!("same{n:06}"), 2, b"x")));
    entries.push(entry("last", 3, &last));
    let made = testkit::blob::Finished::new(members.concat(), &testkit::blob::toc_json(&entries));
    let key = LayerKey { blob: Digest::of(&made.bytes), toc: made.toc_digest.parse().unwrap() };
    let blob = Blob { bytes: made.bytes.into(), key, files: Default::default() };

    let dir = Dir::new();
    let store = dir.open();
    let layer = store.open_layer(blob.key, Memory::new(&blob)).await.unwrap();
    let chunks = layer.index().chunk_count();
    assert_eq!(chunks as usize, SAME + 2);
    let accesses = [0, chunks - 1].map(|chunk| Access { chunk: ChunkId(chunk), at: 0 });
    assert!(layer.learn(PLAN, &accesses));
    let began = Instant::now();
    assert!(layer.start_plan(PLAN));
    while layer.stats().chunks_present < 2 {
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", layer.stats());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    settled(&store).await;
}

/// A start that misses much while its plan is under way is another one than the plan's: what it reads is not here.
#[tokio::test(flavor = "multi_thread")]
async fn the_background_does_not_wait_for_a_start_that_reads_something_else() {
    let blob = Blob::small_files(400, 20_000);
    let (dir, files) = (Dir::new(), program());
    let store = Store::open(StoreConfig { max_window: 64 << 10, ..dir.config() }).unwrap();
    let (layer, _source) = open(&store, &blob).await;
    start(&layer, &blob, &files).await;
    store.remove(&blob.key).unwrap();
    drop(layer);

    let (layer, source) = open(&store, &blob).await;
    source.state.lock().latency = Duration::from_millis(100);
    let other = |n: &u32| !files.contains(&format!("file{n:04}"));
    assert!(layer.start_plan(PLAN));
    layer.start_background();
    while layer.stats().planned_requests == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let others = (0..400).step_by(16).filter(other).map(|n| {
        let (layer, file) = (Arc::clone(&layer), node(&layer, &format!("file{n:04}")));
        tokio::spawn(async move { layer.read(file, 0, 10).await.unwrap() })
    });
    for read in others.collect::<Vec<_>>() {
        read.await.unwrap();
    }
    let began = Instant::now();
    // As long as files are read for the first time the start that was planned would not be over.
    for name in &files {
        layer.read(node(&layer, name), 0, 10).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        if source.requests().iter().any(|(_, class)| *class == Class::Background) {
            break;
        }
        assert!(began.elapsed() < Duration::from_millis(1500), "the background waits");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_an_image_are_fetched_in_one_order() {
    let (a, b) = (Blob::small_files(200, 20_000), Blob::small_files(200, 20_001));
    let dir = Dir::new();
    let store = dir.open();
    let (first, second) = (open(&store, &a).await, open(&store, &b).await);
    for n in 0..20 {
        let name = format!("file{:04}", 199 - n * 7);
        first.0.read(node(&first.0, &name), 0, 10).await.unwrap();
        second.0.read(node(&second.0, &name), 0, 10).await.unwrap();
    }
    for key in [a.key, b.key] {
        store.remove(&key).unwrap();
    }
    drop((first, second));
    let (first, second) = (open(&store, &a).await, open(&store, &b).await);
    for source in [&first.1, &second.1] {
        source.state.lock().latency = Duration::from_millis(100);
    }
    assert!(first.0.start_plan(PLAN) && second.0.start_plan(PLAN));
    tokio::time::sleep(Duration::from_millis(250)).await;
    let counts = [&first.1, &second.1].map(|source| source.requests().len());
    assert!(counts[0].abs_diff(counts[1]) <= 2 && counts[0] + counts[1] > 2, "{counts:?}");
    settled(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn demand_overtakes_a_plan_that_hangs_and_the_background_goes_on() {
    let blob = Blob::small_files(200, 20_000);
    let dir = Dir::new();
    let store = dir.open();
    let (layer, _source) = open(&store, &blob).await;
    start(&layer, &blob, &(0..20).map(|n| format!("file{:04}", n * 3)).collect::<Vec<_>>()).await;
    store.remove(&blob.key).unwrap();
    drop(layer);

    let (layer, source) = open(&store, &blob).await;
    source.state.lock().next = vec![Fault::Hang; 2];
    assert!(layer.start_plan(PLAN));
    while source.requests().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    assert_eq!(layer.read(node(&layer, "file0199"), 0, 20_000).await.unwrap(), *blob.truth("file0199"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    layer.start_background();
    while !source.requests().iter().any(|(_, class)| *class == Class::Background) {
        assert!(began.elapsed() < Duration::from_secs(8), "the background stands still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_share_a_layer_have_plans_of_their_own() {
    let blob = Blob::small_files(200, 20_000);
    let dir = Dir::new();
    let store = dir.open();
    let images = [PlanId(7), PlanId(8)];
    let names = |from: u32| (0..8).map(|n| format!("file{:04}", from + n * 11)).collect::<Vec<_>>();
    for (image, first) in images.into_iter().zip([0, 5]) {
        let (layer, _source) = open(&store, &blob).await;
        layer.begin_start(image);
        start(&layer, &blob, &names(first)).await;
        store.remove(&blob.key).unwrap();
    }
    for (image, first) in images.into_iter().zip([0, 5]) {
        let (layer, source) = open(&store, &blob).await;
        let own = layer.profile_of(image).unwrap();
        assert!(own.is_whole() && own.accesses().len() == 8, "{own:?}");
        // Half of it is here when the image comes.
        start(&layer, &blob, &names(first)[..4]).await;
        source.state.lock().log.clear();
        assert!(layer.start_plan(image));
        layer.begin_start(image);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = layer.stats();
        start(&layer, &blob, &names(first)).await;
        assert_eq!(layer.stats().misses, before.misses, "image {image:?}");
        assert!(
            layer.profile_of(image).unwrap().accesses() == own.accesses(),
            "a warm start changes nothing"
        );
        store.remove(&blob.key).unwrap();
    }
    assert_eq!(open(&store, &blob).await.0.profile_of(PlanId(9)).unwrap().accesses().len(), 16);
    settled(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_finds_the_layer_read_already_is_joined_with_what_others_read() {
    let blob = Blob::small_files(100, 20_000);
    let dir = Dir::new();
    let store = dir.open();
    let (layer, _source) = open(&store, &blob).await;
    let names = |numbers: &[u32]| numbers.iter().map(|n| format!("file{n:04}")).collect::<Vec<_>>();
    assert!(!layer.begin_start(PlanId(1)));
    start(&layer, &blob, &names(&[3, 60])).await;
    assert!(layer.begin_start(PlanId(1)), "it starts again");
    assert!(!layer.begin_start(PlanId(2)));
    start(&layer, &blob, &names(&[80])).await;
    assert_eq!(layer.profile_of(PlanId(2)).unwrap().accesses().len(), 3);
    store.remove(&blob.key).unwrap();
    // Seen from its first read on, it is known by itself. One that reads nothing of the layer is too.
    let (layer, _source) = open(&store, &blob).await;
    layer.begin_start(PlanId(2));
    layer.begin_start(PlanId(3));
    start(&layer, &blob, &names(&[60, 80])).await;
    assert_eq!(layer.profile_of(PlanId(2)).unwrap().accesses().len(), 2);
    assert_eq!(layer.profile_of(PlanId(4)).unwrap().accesses().len(), 3);
}
