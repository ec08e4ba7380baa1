//! What is kept, what is not when there is no room, and what the disk lost.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use store::{Disk, Layer, Store};

use crate::{
    background::complete,
    blob::{Blob, node},
    memory::{Dir, Fault, Memory, settled},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_on_disk_is_found_dropped_and_fetched_again() {
    let blob = Blob::small_files(6, 300_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    layer.start_background();
    complete(&layer).await;
    store.flush();
    let sound = layer.verify(0, u64::MAX).unwrap();
    assert_eq!((sound.chunks, sound.next), (layer.stats().chunks_total, None));
    assert_eq!((sound.bytes, sound.damaged.len()), (layer.stats().bytes_total, 0));

    let content = dir.files(blob.key).join("content");
    let file = File::options().read(true).write(true).open(&content).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 310_000).unwrap();
    file.write_all_at(&[byte[0] ^ 4], 310_000).unwrap();
    file.sync_all().unwrap();
    source.set(Fault::Down);
    let found = layer.verify(0, u64::MAX).unwrap();
    assert_eq!(found.damaged.len(), 1);
    assert_eq!(layer.stats().damaged_chunks, 1);
    settled(&store).await;
    // The bit on disk is gone before anything else happens.
    assert_eq!(layer.stats().chunks_present, layer.stats().chunks_total - 1);
    drop((layer, store));
    let store = dir.open();
    let layer = store.attach(blob.key, source.clone()).unwrap().unwrap();
    assert_eq!(layer.stats().chunks_present, layer.stats().chunks_total - 1);

    source.set(Fault::None);
    for (name, data) in &blob.files {
        assert_eq!(layer.read(node(&layer, name), 0, data.len()).await.unwrap(), *data);
    }
    complete(&layer).await;
    assert!(layer.verify(0, u64::MAX).unwrap().damaged.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_comes_again_by_itself_and_verifying_goes_on_where_it_stopped() {
    let blob = Blob::small_files(6, 300_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    layer.start_background();
    complete(&layer).await;
    store.flush();
    let content = dir.files(blob.key).join("content");
    let file = File::options().write(true).open(&content).unwrap();
    file.write_all_at(&[0; 4096], 0).unwrap();
    file.sync_all().unwrap();
    let (mut from, mut steps, mut damaged) = (Some(0), 0, 0);
    while let Some(chunk) = from {
        let checked = layer.verify(chunk, 100_000).unwrap();
        (from, steps, damaged) = (checked.next, steps + 1, damaged + checked.damaged.len());
    }
    assert!(steps >= 6, "{steps}");
    assert_eq!(damaged, 1);
    complete(&layer).await;
    assert!(layer.verify(0, u64::MAX).unwrap().damaged.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_reads_are_served_and_nothing_is_kept() {
    let blob = Blob::small_files(12, 100_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    assert!(store.set_keeping(false) && !store.set_keeping(false));
    layer.start_background();
    for (name, data) in &blob.files {
        assert_eq!(layer.read(node(&layer, name), 0, data.len()).await.unwrap(), *data);
    }
    settled(&store).await;
    assert_eq!(layer.stats().chunks_present, 0);
    assert!(store.uncached_chunks() >= 12);
    assert_eq!(layer.stats().background_requests, 0);
    // Wrong bytes are as wrong as ever.
    source.set(Fault::Flip(3000));
    let error = layer.read(node(&layer, "file0000"), 0, 100_000).await.unwrap_err();
    assert!(error.to_string().contains("does not match"), "{error}");
    source.set(Fault::None);
    assert!(store.set_keeping(true));
    layer.start_background();
    complete(&layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_retired_at_once_and_closed_ones_come_back() {
    let (first, second) = (Blob::small_files(3, 200_000), Blob::small_files(4, 200_000));
    let dir = Dir::new();
    let store = dir.open();
    let mut layers = Vec::new();
    for blob in [&first, &second] {
        let layer = store.open_layer(blob.key, Memory::new(blob)).await.unwrap();
        layer.read(node(&layer, "file0000"), 0, 10).await.unwrap();
        layers.push(layer);
    }
    store.flush();
    let on_disk = store.on_disk();
    assert_eq!(on_disk.len(), 2);
    assert!(on_disk.iter().all(|layer| layer.bytes > 4096 && layer.bytes == store.disk_bytes(&layer.key)));

    // Whoever reads goes on, the name is gone, the files follow.
    let retired = store.retire(&first.key).unwrap().unwrap();
    assert!(store.layer(&first.key).is_none() && store.on_disk().len() == 1);
    let data = first.truth("file0002");
    assert_eq!(layers[0].read(node(&layers[0], "file0002"), 0, data.len()).await.unwrap(), *data);
    let entries = || fs::read_dir(dir.0.path().join("layers")).unwrap().count();
    assert_eq!(entries(), 2);
    retired.delete().unwrap();
    assert_eq!(entries(), 1);
    assert!(store.retire(&first.key).unwrap().is_none());

    store.close(&second.key);
    assert!(store.layer(&second.key).is_none() && store.on_disk().len() == 1);
    let again = reopened(&store, &second);
    assert!(again.stats().chunks_present > 0);
    let data = second.truth("file0001");
    // The one that was closed is still read, and records nothing that the new one does not know of.
    assert_eq!(layers[1].read(node(&layers[1], "file0001"), 0, data.len()).await.unwrap(), *data);
    layers[1].flush();
    assert_eq!(again.read(node(&again, "file0001"), 0, data.len()).await.unwrap(), *data);
}

/// A file system gives back whole blocks, and each file has its own.
#[tokio::test(flavor = "multi_thread")]
async fn small_files_give_back_what_they_take() {
    let blob = Blob::small_files(50, 1000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source).await.unwrap();
    layer.start_background();
    complete(&layer).await;
    settled(&store).await;
    store.flush();
    let before = layer.stats().disk_bytes;
    assert_eq!(store.give_back(&blob.key, u64::MAX).unwrap(), 50 * 4096);
    assert_eq!(before - layer.stats().disk_bytes, 50 * 4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_start_reads_is_given_back_and_comes_again_when_it_is_read() {
    let blob = Blob::small_files(12, 300_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    for name in ["file0002", "file0007"] {
        layer.read(node(&layer, name), 0, 300_000).await.unwrap();
    }
    layer.start_background();
    complete(&layer).await;
    settled(&store).await;
    store.flush();
    let before = layer.stats();

    assert!(store.give_back(&blob.key, 500_000).unwrap() >= 500_000);
    let stats = layer.stats();
    assert_eq!(stats.chunks_total - stats.chunks_present, 2, "as many as were asked for");
    assert!(before.disk_bytes - stats.disk_bytes >= 580_000, "{} {}", before.disk_bytes, stats.disk_bytes);
    assert_eq!(store.give_back(&blob.key, u64::MAX).unwrap(), 8 * 300_000_u64.next_multiple_of(4096));
    source.set(Fault::Down);
    for (name, data) in &blob.files {
        let mut bytes = vec![0; data.len()];
        let here = layer.read_cached(node(&layer, name), 0, &mut bytes).unwrap();
        let read = ["file0002", "file0007"].contains(&name.as_str());
        assert_eq!(here, read.then_some(data.len()), "{name}");
        assert!(!read || bytes == *data);
    }
    source.set(Fault::None);
    // Not by the background, which would only fill the disk again.
    layer.start_background();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(layer.stats().chunks_present, 2);
    for (name, data) in &blob.files {
        assert_eq!(layer.read(node(&layer, name), 0, data.len()).await.unwrap(), *data);
    }
    drop((layer, store));
    let store = dir.open();
    let layer = store.attach(blob.key, source).unwrap().unwrap();
    assert_eq!(layer.stats().chunks_present, 12);
    assert!(layer.verify(0, u64::MAX).unwrap().damaged.is_empty());
}

/// A disk that waits for nothing, so that bytes go soon after their bits.
struct Quick;

impl Disk for Quick {
    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }
}

/// Long files: there is time for a hole between the look at the bits and the last byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn giving_back_under_reads_never_shows_a_hole() {
    const LEN: usize = 4 << 20;
    let blob = Blob::small_files(4, LEN);
    let dir = Dir::new();
    let config = store::StoreConfig { record: Duration::ZERO, ..dir.config() };
    let store = Store::open_on(Arc::new(Quick), config).unwrap();
    let layer = store.open_layer(blob.key, Memory::new(&blob)).await.unwrap();
    let ends = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|reader| {
            let (layer, blob, ends) = (Arc::clone(&layer), blob.clone(), Arc::clone(&ends));
            tokio::spawn(async move {
                let (mut reads, mut buf) = (0usize, vec![0; LEN]);
                while !ends.load(Relaxed) {
                    let name = format!("file{:04}", (reads + reader) % 4);
                    let file = node(&layer, &name);
                    match layer.read_cached(file, 0, &mut buf).unwrap() {
                        Some(_) => assert!(buf == blob.truth(&name), "{name} has a hole"),
                        None => {
                            assert!(layer.read(file, 0, LEN).await.unwrap() == blob.truth(&name), "{name}")
                        }
                    }
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    let (began, mut given) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(3) {
        let (store, key) = (Arc::clone(&store), blob.key);
        given += tokio::task::spawn_blocking(move || {
            store.flush();
            store.give_back(&key, LEN as u64).unwrap()
        })
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ends.store(true, Relaxed);
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }
    assert!(given > 3 * LEN as u64 && reads > 10, "{given} bytes were given back under {reads} reads");
    settled(&store).await;
}

/// A disk that cannot make holes, as NFS before 4.2.
struct NoHoles;

impl Disk for NoHoles {
    fn punch(&self, _: &File, _: u64, _: u64) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_holes_can_be_made_nothing_is_given_up() {
    let blob = Blob::small_files(6, 30_000);
    let dir = Dir::new();
    let config = store::StoreConfig { record: Duration::ZERO, ..dir.config() };
    let store = Store::open_on(Arc::new(NoHoles), config).unwrap();
    let layer = store.open_layer(blob.key, Memory::new(&blob)).await.unwrap();
    layer.start_background();
    complete(&layer).await;
    layer.flush();
    store.give_back(&blob.key, u64::MAX).unwrap_err();
    assert_eq!(layer.stats().chunks_present, layer.stats().chunks_total);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_reads_who_has_held_the_layer_since_before_it_was_closed_is_not_given_back() {
    let blob = Blob::small_files(6, 30_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = Store::open(store::StoreConfig { record: Duration::ZERO, ..dir.config() }).unwrap();
    let held = store.open_layer(blob.key, source).await.unwrap();
    held.start_background();
    complete(&held).await;
    settled(&store).await;
    store.close(&blob.key);
    let _open = reopened(&store, &blob);
    assert_eq!(store.give_back(&blob.key, u64::MAX).unwrap(), 0);
    let data = blob.truth("file0003");
    assert_eq!(held.read(node(&held, "file0003"), 0, data.len()).await.unwrap(), *data);
    let began = Instant::now();
    drop(held);
    while store.give_back(&blob.key, u64::MAX).unwrap() == 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "nobody holds it any more");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn reopened(store: &Store, blob: &Blob) -> std::sync::Arc<Layer> {
    store.attach(blob.key, Memory::new(blob)).unwrap().unwrap()
}
