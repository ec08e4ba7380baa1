//! A layer whose origin hangs costs that layer only.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    blob::{Blob, node},
    memory::{Dir, Fault, Memory},
};

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_hanging_reads_slow_nobody_else() {
    for fault in [Fault::Hang, Fault::HangAfter(3000)] {
        let (bad, good) = (Blob::small_files(400, 40_000), Blob::small_files(200, 40_001));
        let (dir, bad_source, good_source) = (Dir::new(), Memory::new(&bad), Memory::new(&good));
        let store = dir.open();
        let stuck = store.open_layer(bad.key, bad_source.clone()).await.unwrap();
        let layer = store.open_layer(good.key, good_source).await.unwrap();
        bad_source.set(fault);
        let hanging: Vec<_> = (0..2000u64)
            .map(|number| {
                let stuck = Arc::clone(&stuck);
                let file = node(&stuck, &format!("file{:04}", number % 400));
                tokio::spawn(async move { stuck.read(file, number, 100).await })
            })
            .collect();
        stuck.start_background();
        layer.start_background();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut times = Vec::new();
        for (name, data) in &good.files {
            let began = Instant::now();
            assert_eq!(layer.read(node(&layer, name), 0, data.len()).await.unwrap(), *data);
            times.push(began.elapsed());
        }
        times.sort_unstable();
        let p99 = times[times.len() * 99 / 100];
        assert!(p99 < Duration::from_millis(500), "p99 of the other layer's reads is {p99:?}");
        assert!(hanging.iter().all(|read| !read.is_finished()));
        hanging.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
