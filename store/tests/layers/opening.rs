//! Opening, attaching, removing.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use estargz::Digest;
use store::{LayerKey, OpenLayerError};

use crate::{
    blob::{Blob, node},
    memory::{Dir, Fault, Memory},
};

#[tokio::test(flavor = "multi_thread")]
async fn opens_once_with_one_request_and_attaches_with_none() {
    let blob = Blob::new(&[("a", 10_000)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    assert!(store.attach(blob.key, source.clone()).unwrap().is_none());
    let (one, two) =
        tokio::join!(store.open_layer(blob.key, source.clone()), store.open_layer(blob.key, source.clone()));
    assert!(Arc::ptr_eq(&one.unwrap(), &two.unwrap()));
    assert_eq!((source.tails.load(SeqCst), source.requests().len()), (1, 0));
    drop(store);
    let store = dir.open();
    assert_eq!(store.keys_on_disk(), [blob.key]);
    let layer = store.attach(blob.key, source.clone()).unwrap().unwrap();
    assert_eq!(layer.read(node(&layer, "a"), 0, 10_000).await.unwrap(), *blob.truth("a"));
    assert_eq!(source.tails.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_toc_takes_a_second_request() {
    let blob = Blob::small_files(12_000, 9);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let layer = dir.open().open_layer(blob.key, source.clone()).await.unwrap();
    assert_eq!((source.tails.load(SeqCst), source.requests().len()), (1, 1));
    assert_eq!(layer.index().chunk_count(), 12_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_toc_that_the_image_does_not_name_is_refused() {
    let blob = Blob::new(&[("a", 10_000)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let key = LayerKey { toc: Digest::of(b"another"), ..blob.key };
    let error = store.open_layer(key, source.clone()).await.unwrap_err();
    assert!(matches!(error, OpenLayerError::TocDigest { .. }), "{error}");
    assert!(store.layers().is_empty() && store.keys_on_disk().is_empty());
    assert_eq!(std::fs::read_dir(dir.0.path().join("layers")).unwrap().count(), 0);

    let plain = Blob { bytes: vec![7; 5000].into(), ..blob };
    let error = store.open_layer(plain.key, Memory::new(&plain)).await.unwrap_err();
    assert!(matches!(error, OpenLayerError::Footer(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_blob_with_two_tocs_is_two_layers() {
    // The second blob poses as the first: same blob digest, a TOC of its own.
    let honest = Blob::new(&[("a", 10_000)], 4 << 20);
    let mut posing = Blob::new(&[("a", 10_001)], 4 << 20);
    posing.key.blob = honest.key.blob;
    let dir = Dir::new();
    let store = dir.open();
    let evil = store.open_layer(posing.key, Memory::new(&posing)).await.unwrap();
    evil.read(node(&evil, "a"), 0, 10).await.unwrap();
    let layer = store.open_layer(honest.key, Memory::new(&honest)).await.unwrap();
    assert!(!Arc::ptr_eq(&evil, &layer));
    assert_eq!(layer.stats().chunks_present, 0);
    assert_eq!(layer.read(node(&layer, "a"), 0, 10_000).await.unwrap(), *honest.truth("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_layer_can_be_read_by_those_who_hold_it() {
    let blob = Blob::new(&[("a", 10_000), ("b", 10_000)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    let layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    layer.read(node(&layer, "a"), 0, 10).await.unwrap();
    store.remove(&blob.key).unwrap();
    store.remove(&blob.key).unwrap();
    assert!(store.keys_on_disk().is_empty() && store.layer(&blob.key).is_none());
    assert_eq!(layer.read(node(&layer, "a"), 0, 10_000).await.unwrap(), *blob.truth("a"));
    assert_eq!(layer.read(node(&layer, "b"), 0, 10_000).await.unwrap(), *blob.truth("b"));
    let again = store.open_layer(blob.key, source).await.unwrap();
    assert_eq!(again.stats().chunks_present, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_is_rebuilt_without_the_network() {
    let blob = Blob::new(&[("a", 10_000)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    drop(dir.open().open_layer(blob.key, source.clone()).await.unwrap());
    let path = dir.files(blob.key);
    source.set(Fault::Down);
    for damage in [&b""[..], b"starlidx another version"] {
        std::fs::write(path.join("index"), damage).unwrap();
        let layer = dir.open().attach(blob.key, source.clone()).unwrap().unwrap();
        assert_eq!(layer.index().file(node(&layer, "a")).unwrap().size, 10_000);
    }
    // One bit is enough, wherever it is.
    let whole = std::fs::read(path.join("index")).unwrap();
    for at in (0..whole.len()).step_by(37).chain([whole.len() - 1]) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(path.join("index"), flipped).unwrap();
        drop(dir.open().attach(blob.key, source.clone()).unwrap().unwrap());
        assert!(std::fs::read(path.join("index")).unwrap() == whole, "byte {at}");
    }
    assert_eq!((source.tails.load(SeqCst), source.requests().len()), (1, 0));
    // A damaged TOC leaves nothing to go by: the layer has to be opened anew.
    std::fs::write(path.join("index"), b"").unwrap();
    std::fs::write(path.join("toc"), b"").unwrap();
    let store = dir.open();
    assert!(store.attach(blob.key, source.clone()).unwrap().is_none());
    store.open_layer(blob.key, source).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_that_panicked_can_be_tried_again() {
    let blob = Blob::new(&[("a", 10_000)], 4 << 20);
    let (dir, source) = (Dir::new(), Memory::new(&blob));
    let store = dir.open();
    source.set(Fault::Panic);
    let error = store.open_layer(blob.key, source.clone()).await.unwrap_err();
    assert!(matches!(error, OpenLayerError::Closed), "{error}");
    source.set(Fault::None);
    store.open_layer(blob.key, source).await.unwrap();
}
