//! Random reads, faults, restarts and what is given back: bytes are the blob's or an error, and bits on disk stand for
//! verified content.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use store::{Layer, Store, StoreConfig};

use crate::{
    blob::{Blob, node},
    memory::{Dir, Fault, Memory},
};

#[derive(Debug, Clone)]
enum Step {
    Read { file: usize, offset: usize, len: usize },
    ReadTogether(Vec<(usize, usize)>),
    Faults(Vec<Fault>),
    Background,
    Flush,
    GiveBack(u64),
    Restart { orderly: bool },
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::None),
        Just(Fault::Down),
        (0usize..90_000).prop_map(Fault::CutAfter),
        (0u64..150_000).prop_map(Fault::Flip),
        (0usize..90_000).prop_map(Fault::HangAfter),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..12, 0usize..70_000, 1usize..70_000).prop_map(|(file, offset, len)| Step::Read { file, offset, len }),
        2 => prop::collection::vec((0usize..12, 0usize..60_000), 1..10).prop_map(Step::ReadTogether),
        2 => prop::collection::vec(fault(), 0..3).prop_map(Step::Faults),
        1 => Just(Step::Background),
        1 => Just(Step::Flush),
        1 => (1u64..100_000).prop_map(Step::GiveBack),
        1 => any::<bool>().prop_map(|orderly| Step::Restart { orderly }),
    ]
}

fn blob() -> Blob {
    let sizes = [1, 60_000, 100, 4096, 4097, 25_000, 0, 12_345, 33_000, 7, 50_000, 9000];
    let names: Vec<_> = (0..sizes.len()).map(|number| format!("f{number:02}")).collect();
    let files: Vec<_> = names.iter().map(String::as_str).zip(sizes).collect();
    Blob::new(&files, 16_384)
}

fn open(dir: &Dir) -> Arc<Store> {
    let config = StoreConfig {
        min_window: 4096,
        max_window: 64 << 10,
        memory_budget: 64 << 10,
        read_timeout: Duration::from_millis(150),
        // What is given back is what was read, too.
        record: Duration::ZERO,
        ..dir.config()
    };
    Store::open(config).unwrap()
}

async fn check(layer: &Arc<Layer>, blob: &Blob, (file, offset, len): (usize, usize, usize)) {
    let name = format!("f{file:02}");
    let truth = blob.truth(&name);
    let expected = &truth[offset.min(truth.len())..(offset + len).min(truth.len())];
    let file = node(layer, &name);
    if let Ok(bytes) = layer.read(file, offset as u64, len).await {
        assert_eq!(bytes, expected);
    }
    let mut buf = vec![0xaa; len];
    if let Some(got) = layer.read_cached(file, offset as u64, &mut buf).unwrap() {
        assert_eq!(buf[..got], *expected);
    }
}

async fn run(steps: Vec<Step>) {
    let (blob, dir) = (blob(), Dir::new());
    let source = Memory::new(&blob);
    let mut store = open(&dir);
    let mut layer = store.open_layer(blob.key, source.clone()).await.unwrap();
    for step in steps {
        match step {
            Step::Read { file, offset, len } => check(&layer, &blob, (file, offset, len)).await,
            Step::GiveBack(bytes) => drop(store.give_back(&blob.key, bytes).unwrap()),
            Step::ReadTogether(reads) => {
                let reads =
                    reads.into_iter().map(|(file, offset)| check(&layer, &blob, (file, offset, 10_000)));
                futures_util::future::join_all(reads).await;
            }
            Step::Faults(faults) => source.state.lock().next = faults,
            Step::Background => layer.start_background(),
            Step::Flush => store.flush(),
            Step::Restart { orderly } => {
                if orderly {
                    store.flush();
                }
                dir.recorded(&layer);
                store = open(&dir);
                layer = store.attach(blob.key, source.clone()).unwrap().unwrap();
            }
        }
    }
    dir.recorded(&layer);
    source.state.lock().next.clear();
    for file in 0..blob.files.len() {
        let name = format!("f{file:02}");
        // A read may still meet what an earlier fault left on its way.
        let mut tries = 0;
        let bytes = loop {
            match layer.read(node(&layer, &name), 0, 70_000).await {
                Ok(bytes) => break bytes,
                Err(error) => assert!(tries < 20, "{name} does not heal: {error}"),
            }
            tries += 1;
        };
        assert_eq!(bytes, blob.truth(&name));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn reads_give_the_blobs_bytes_or_an_error(steps in prop::collection::vec(step(), 1..20)) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run(steps));
    }
}
