//! Layers of the store: bytes that come by range, are verified and kept; origins that lie, fail and hang.

use std::{
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use estargz::{Digest, write};
use futures_util::{StreamExt, stream};
use store::{
    BlobSource, ByteStream, Class, LayerKey, SourceError, SourceErrorKind, Store, StoreConfig, Tail,
};

use crate::fixture::{Fixture, connect, slot};

/// How an origin answers requests for ranges.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Origin {
    Honest,
    Fails,
    Hangs,
}

pub(crate) struct Blob {
    bytes: Bytes,
    origin: Origin,
    requests: AtomicUsize,
}

#[async_trait]
impl BlobSource for Blob {
    async fn read_tail(&self, len: u64) -> Result<Tail, SourceError> {
        let start = self.bytes.len().saturating_sub(len as usize);
        Ok(Tail { bytes: self.bytes.slice(start..), blob_size: self.bytes.len() as u64, arrival: None })
    }

    async fn read_range(&self, range: Range<u64>, _class: Class) -> Result<ByteStream, SourceError> {
        self.requests.fetch_add(1, SeqCst);
        match self.origin {
            Origin::Honest => {
                let bytes = self.bytes.slice(range.start as usize..range.end as usize);
                Ok(stream::once(async move { Ok(bytes) }).boxed())
            }
            Origin::Fails => Err(SourceError::new(SourceErrorKind::Unavailable, "the origin is down")),
            Origin::Hangs => std::future::pending().await,
        }
    }

    fn distrust(&self) {}

    fn describe(&self) -> String {
        "a blob in memory".into()
    }
}

/// A blob and the digests that an image would name it by.
pub(crate) struct Image {
    blob: Bytes,
    key: LayerKey,
}

pub(crate) fn image(tar: &[u8]) -> Image {
    let options = write::Options { chunk_size: 65_536.try_into().unwrap(), ..write::Options::default() };
    let built = write::build(tar, &options).unwrap();
    let key = LayerKey { blob: Digest::of(&built.blob), toc: built.toc_digest };
    Image { blob: built.blob.into(), key }
}

/// An archive of files, whose bytes differ and do not compress to nothing.
fn archive(files: impl Iterator<Item = (String, usize)>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, len) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(len as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, &name, content(&name, len).as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn content(name: &str, len: usize) -> Vec<u8> {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b'a' + (state >> 59) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub(crate) struct Stored {
    store: Arc<Store>,
    pub(crate) fixture: Fixture,
}

/// A connection, and a store beside it whose reads end within `read_timeout`.
pub(crate) fn stored(read_timeout: Duration) -> Option<Stored> {
    let fixture = connect()?;
    let root = fixture.dir.path().join("store");
    let config = StoreConfig { read_timeout, background: false, ..StoreConfig::new(root) };
    let store = fixture.runtime.block_on(async { Store::open(config) }).unwrap();
    Some(Stored { store, fixture })
}

impl Stored {
    /// Opens the image's layer, mounts it, and gives its directory and its origin.
    pub(crate) fn mount(&self, number: u32, image: &Image, origin: Origin) -> (PathBuf, Arc<Blob>) {
        let source = Arc::new(Blob { bytes: image.blob.clone(), origin, requests: AtomicUsize::new(0) });
        let layer = self.fixture.runtime.block_on(self.store.open_layer(image.key, source.clone())).unwrap();
        self.fixture.connection.attach(slot(number), layer).unwrap();
        (self.fixture.connection.layer_path(slot(number)), source)
    }
}

fn errno(path: &Path) -> Option<i32> {
    std::fs::read(path).unwrap_err().raw_os_error()
}

#[test]
fn bytes_are_fetched_once_and_outlive_the_origin() {
    let Some(stored) = stored(Duration::from_secs(10)) else { return };
    let files = || (0..20).map(|i| (format!("dir/file{i}"), i * 40_000));
    let image = image(&archive(files()));
    let (path, source) = stored.mount(1, &image, Origin::Honest);
    for (name, len) in files() {
        assert!(std::fs::read(path.join(&name)).unwrap() == content(&name, len), "{name}");
    }
    let requests = source.requests.load(SeqCst);
    assert!(requests > 0);

    // Another slot has inodes and pages of its own: the same bytes come from the store.
    let layer = stored.store.layer(&image.key).unwrap();
    layer.set_source(Arc::new(Blob {
        bytes: Bytes::new(),
        origin: Origin::Fails,
        requests: AtomicUsize::new(0),
    }));
    stored.fixture.connection.attach(slot(2), layer).unwrap();
    let again = stored.fixture.connection.layer_path(slot(2));
    let before = stored.fixture.connection.counters();
    for (name, len) in files() {
        assert!(std::fs::read(again.join(&name)).unwrap() == content(&name, len), "{name}");
    }
    let after = stored.fixture.connection.counters();
    assert_eq!((after.misses, after.errors), (before.misses, 0));
    assert_eq!(source.requests.load(SeqCst), requests);
}

#[test]
fn a_byte_that_was_changed_is_eio_and_the_rest_is_right() {
    let Some(stored) = stored(Duration::from_secs(5)) else { return };
    let files = || (0..10).map(|i| (format!("file{i}"), 30_000));
    let mut image = image(&archive(files()));
    // Half-way through the blob is inside the contents, which do not compress well, of one file.
    let mut blob = image.blob.to_vec();
    let middle = blob.len() / 2;
    blob[middle] ^= 0x10;
    image.blob = blob.into();
    let (path, _) = stored.mount(1, &image, Origin::Honest);
    let (mut right, mut refused) = (0, 0);
    for (name, len) in files() {
        match std::fs::read(path.join(&name)) {
            Ok(bytes) => {
                assert!(bytes == content(&name, len), "{name} has wrong bytes");
                right += 1;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO));
                refused += 1;
            }
        }
    }
    assert_eq!((right, refused), (9, 1));
    assert!(stored.fixture.connection.counters().errors > 0);
}

#[test]
fn an_origin_that_fails_or_hangs_is_eio_within_the_time_allowed() {
    let allowed = Duration::from_secs(2);
    let Some(stored) = stored(allowed) else { return };
    for (number, origin) in [(1, Origin::Fails), (2, Origin::Hangs)] {
        let image = image(&archive([(format!("file{number}"), 5000)].into_iter()));
        let (path, _) = stored.mount(number, &image, origin);
        let began = Instant::now();
        assert_eq!(errno(&path.join(format!("file{number}"))), Some(libc::EIO));
        // The kernel may try a page alone after a read-ahead that failed.
        assert!(began.elapsed() < 4 * allowed, "{:?}", began.elapsed());
        assert_eq!(path.join(format!("file{number}")).metadata().unwrap().len(), 5000);
    }
}

/// Median and 99th percentile of the time that a first read takes.
fn latency(paths: &[PathBuf]) -> (Duration, Duration) {
    let mut times: Vec<_> = paths
        .iter()
        .map(|path| {
            let began = Instant::now();
            assert_eq!(std::fs::read(path).unwrap().len(), 5000);
            began.elapsed()
        })
        .collect();
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
fn two_thousand_reads_of_a_hanging_origin_do_not_slow_another_layer() {
    const HANGING: usize = 2000;
    let Some(stored) = stored(Duration::from_secs(30)) else { return };
    let bad = image(&archive((0..HANGING).map(|i| (i.to_string(), 3000))));
    // Two layers, for a miss brings its neighbours.
    let good = [2, 3].map(|number| {
        let files = (0..300).map(|i| (format!("{number}-{i}"), 5000));
        let (path, source) = stored.mount(number, &image(&archive(files)), Origin::Honest);
        let files: Vec<_> = (0..300).map(|i| path.join(format!("{number}-{i}"))).collect();
        (files, source)
    });
    let (bad, _) = stored.mount(1, &bad, Origin::Hangs);
    let quiet = latency(&good[0].0);

    let held: Vec<_> = (0..HANGING).map(|i| File::open(bad.join(i.to_string())).unwrap()).collect();
    for file in &held {
        nix::fcntl::posix_fadvise(file, 0, 3000, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_WILLNEED)
            .unwrap();
    }
    let began = Instant::now();
    while stored.fixture.connection.counters().stalls.waiting < HANGING as u64 {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    let loaded = latency(&good[1].0);
    println!("median and p99 without {quiet:?}, beside {HANGING} hanging reads {loaded:?}");
    assert_eq!(stored.fixture.connection.counters().stalls.waiting, HANGING as u64);
    assert!(good.iter().all(|(_, source)| source.requests.load(SeqCst) > 0), "both met misses");
    // The machine that runs tests is busy: what is told apart is waiting for a hanging read or not.
    assert!(loaded.0 < quiet.0 * 3 + Duration::from_millis(20), "{quiet:?} {loaded:?}");
    assert!(loaded.1 < quiet.1 * 5 + Duration::from_millis(200), "{quiet:?} {loaded:?}");
}
