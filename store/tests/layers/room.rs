//! What is kept, what is not when there is no room, and what the disk lost.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use store::{Layer, Store};

use crate::{
    background::complete,
    blob::{Blob, node},
    memory::{Dir, Fault, Memory, settled},
};

/// Waits until no chunk is missing.
async fn whole(layer: &Layer) {
    let began = Instant::now();
    while layer.stats().chunks_present < layer.stats().chunks_total {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", layer.stats());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

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

    let content = dir.0.path().join("layers").join(blob.key.to_string()).join("content");
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
    whole(&layer).await;
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
    let content = dir.0.path().join("layers").join(blob.key.to_string()).join("content");
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
    whole(&layer).await;
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
    whole(&layer).await;
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

fn reopened(store: &Store, blob: &Blob) -> std::sync::Arc<Layer> {
    store.attach(blob.key, Memory::new(blob)).unwrap().unwrap()
}
