//! What is on disk after an orderly end, and after none.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, symlink},
    },
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use parking_lot::Mutex;
use store::{Disk, Store, StoreConfig};

use crate::{
    background::complete,
    blob::{Blob, node},
    memory::{Dir, Fault, Memory, settled},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_outlives_the_store() {
    let blob = Blob::small_files(4, 300_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    layer.read(node(&layer, "file0001"), 0, 10).await.unwrap();
    settled(&store).await;
    let present = layer.stats();
    store.flush();
    drop((layer, store));
    source.set(Fault::Down);
    let layer = dir.open().attach(blob.key, source.clone()).unwrap().unwrap();
    assert_eq!(layer.stats().chunks_present, present.chunks_present);
    assert_eq!(layer.stats().bytes_present, present.bytes_present);
    assert_eq!(layer.read(node(&layer, "file0001"), 0, 300_000).await.unwrap(), *blob.truth("file0001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_recorded_by_themselves() {
    let blob = Blob::new(&[("a", 10_000)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let interval = Duration::from_millis(50);
    let store = Store::open(StoreConfig { flush_interval: interval, ..dir.config() }).unwrap();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    layer.read(node(&layer, "a"), 0, 10).await.unwrap();
    let chunks = dir.files(blob.key).join("chunks");
    for _ in 0..100 {
        if fs::read(&chunks).unwrap()[24] == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing was recorded");
}

/// The kernel's copy of the content goes once it is on disk, if that is wanted, and is read again from there.
#[tokio::test(flavor = "multi_thread")]
async fn recorded_content_leaves_the_page_cache_if_that_is_wanted() {
    let blob = Blob::small_files(4, 300_000);
    for drop_page_cache in [false, true] {
        let (dir, source) = (Dir::new(), Memory::new(&blob));
        let store = Store::open(StoreConfig { drop_page_cache, ..dir.config() }).unwrap();
        let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
        layer.read(node(&layer, "file0001"), 0, 300_000).await.unwrap();
        settled(&store).await;
        store.flush();
        let content = dir.files(blob.key).join("content");
        let Some(cached) = cached_bytes(&content) else {
            eprintln!("skipped: needs fincore");
            return;
        };
        assert_eq!(cached == 0, drop_page_cache, "{cached} bytes are cached");
        source.set(Fault::Down);
        let again = layer.read(node(&layer, "file0001"), 0, 300_000).await.unwrap();
        assert_eq!(again, *blob.truth("file0001"));
    }
}

fn cached_bytes(path: &Path) -> Option<u64> {
    let output = Command::new("fincore")
        .args(["--bytes", "--noheadings", "--output", "RES"])
        .arg(path)
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// The machine loses power: what was not synced is gone, though it was served before.
#[tokio::test(flavor = "multi_thread")]
async fn unsynced_chunks_are_fetched_again() {
    let blob = Blob::small_files(6, 300_000);
    let (dir, after) = (Dir::new(), Dir::new());
    let source = Memory::new(&blob);
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    layer.read(node(&layer, "file0000"), 0, 300_000).await.unwrap();
    store.flush();
    let synced = fs::read(dir.files(blob.key).join("content")).unwrap();
    layer.read(node(&layer, "file0004"), 0, 300_000).await.unwrap();

    let copy = after.files(blob.key);
    fs::create_dir_all(&copy).unwrap();
    for name in ["toc", "index", "chunks"] {
        fs::copy(dir.files(blob.key).join(name), copy.join(name)).unwrap();
    }
    fs::write(copy.join("content"), synced).unwrap();
    let restarted = after.open().attach(blob.key, source.clone()).unwrap().unwrap();
    assert!(restarted.stats().chunks_present < layer.stats().chunks_present);
    for (name, data) in &blob.files {
        assert_eq!(restarted.read(node(&restarted, name), 0, data.len()).await.unwrap(), *data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_file_that_was_cut_is_filled_again() {
    let blob = Blob::new(&[("a", 100_000)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    layer.read(node(&layer, "a"), 0, 10).await.unwrap();
    store.flush();
    drop((layer, store));
    fs::write(dir.files(blob.key).join("content"), b"short").unwrap();
    let layer = dir.open().attach(blob.key, source).unwrap().unwrap();
    assert_eq!(layer.stats().chunks_present, 0);
    assert_eq!(layer.read(node(&layer, "a"), 0, 100_000).await.unwrap(), *blob.truth("a"));
}

/// Bytes that cannot be written are served from memory, and not recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_content_file_that_takes_nothing_does_not_fail_reads() {
    let blob = Blob::new(&[("a", 100_000)], 30_000);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    let content = File::from(memfd_create(c"content", MFdFlags::MFD_ALLOW_SEALING).unwrap());
    content.set_len(layer.index().content_len()).unwrap();
    fcntl(&content, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).unwrap();
    drop((layer, store));
    let path = dir.files(blob.key).join("content");
    fs::remove_file(&path).unwrap();
    symlink(format!("/proc/self/fd/{}", content.as_raw_fd()), path).unwrap();

    let layer = dir.open().attach(blob.key, source).unwrap().unwrap();
    let a = node(&layer, "a");
    for (offset, len) in [(0, 100_000), (10, 20), (29_990, 30_020)] {
        assert_eq!(layer.read(a, offset, len).await.unwrap(), blob.truth("a")[offset as usize..][..len]);
    }
    assert_eq!(layer.stats().chunks_present, 0);
    assert_eq!(layer.read_cached(a, 0, &mut [0]).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_layer_does_not_keep_its_successor_from_being_recorded() {
    let blob = Blob::new(&[("a", 10_000)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let interval = Duration::from_millis(700);
    let store = Store::open(StoreConfig { flush_interval: interval, ..dir.config() }).unwrap();
    let old = store.open_layer(blob.key, source.clone()).await.unwrap();
    store.remove(&blob.key).unwrap();
    let new = store.open_layer(blob.key, source.clone()).await.unwrap();
    for layer in [&new, &old] {
        layer.read(node(layer, "a"), 0, 10).await.unwrap();
    }
    for _ in 0..150 {
        if fs::read(dir.files(blob.key).join("chunks")).unwrap()[24] == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing was recorded");
}

/// A disk that can be told to fail a sync.
#[derive(Default)]
struct Faulty {
    fail: AtomicBool,
    /// What a failed sync waits for.
    held: Mutex<()>,
    syncs: AtomicUsize,
}

impl Disk for Faulty {
    /// Linux marks the pages clean that it could not write, and forgets them at some time.
    fn sync(&self, file: &File) -> io::Result<()> {
        self.syncs.fetch_add(1, SeqCst);
        if self.fail.load(SeqCst) {
            let _held = self.held.lock();
            if self.fail.swap(false, SeqCst) {
                file.write_all_at(&vec![0; file.metadata()?.len() as usize], 0)?;
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
        }
        file.sync_data()
    }
}

// The lock is the test's own: it holds up the sync and nothing that is awaited.
#[allow(clippy::await_holding_lock)]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_unsynced_is_trusted_after_a_failed_sync() {
    let blob = Blob::small_files(6, 300_000);
    let (dir, source, disk) = (Dir::new(), Memory::new(&blob), Arc::new(Faulty::default()));
    let store = Store::open_on(disk.clone(), dir.config()).unwrap();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    let read = async |name: &str| {
        let bytes = layer.read(node(&layer, name), 0, 300_000).await.unwrap();
        assert!(bytes == blob.truth(name), "{name}");
    };
    read("file0000").await;
    settled(&store).await;
    disk.fail.store(true, SeqCst);
    let held = disk.held.lock();
    let syncing = std::thread::spawn({
        let layer = Arc::clone(&layer);
        move || layer.flush()
    });
    while disk.syncs.load(SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Written while the sync goes on that will fail.
    read("file0005").await;
    settled(&store).await;
    drop(held);
    syncing.join().unwrap();
    assert_eq!((layer.stats().chunks_present, layer.stats().bytes_present), (0, 0));
    let chunks = dir.files(blob.key).join("chunks");
    // This one works, and must not record what was lost.
    layer.flush();
    assert!(fs::read(&chunks).unwrap()[24..].iter().all(|byte| *byte == 0));
    for name in ["file0000", "file0005", "file0003"] {
        read(name).await;
    }
    store.flush();
    drop((layer, store));
    let layer = dir.open().attach(blob.key, source).unwrap().unwrap();
    for (name, data) in &blob.files {
        assert!(layer.read(node(&layer, name), 0, data.len()).await.unwrap() == *data, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_complete_is_completed_again_after_a_failed_sync() {
    let blob = Blob::small_files(6, 30_000);
    let (dir, source, disk) = (Dir::new(), Memory::new(&blob), Arc::new(Faulty::default()));
    let store = Store::open_on(disk.clone(), dir.config()).unwrap();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    layer.start_background();
    complete(&layer).await;
    disk.fail.store(true, SeqCst);
    let before = source.requests().len();
    layer.flush();
    // Completing it begins at once.
    complete(&layer).await;
    assert!(source.requests().len() > before);
    store.flush();
    assert!(fs::read(dir.files(blob.key).join("chunks")).unwrap()[24..].iter().any(|byte| *byte != 0));
}
