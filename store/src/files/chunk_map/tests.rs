//! The map in memory and in its file.

use std::{collections::BTreeSet, sync::Arc};

use estargz::ChunkId;
use proptest::prelude::*;

use super::*;
use crate::RealDisk;

fn new(count: u32) -> (File, ChunkMap) {
    let file = tempfile::tempfile().unwrap();
    ChunkMap::create(&RealDisk, &file, count).unwrap();
    (file.try_clone().unwrap(), ChunkMap::open(Arc::new(RealDisk), file, count).unwrap())
}

#[test]
fn a_new_map_is_empty() {
    let (_, map) = new(130);
    assert!((0..200).all(|chunk| !map.has(ChunkId(chunk))));
    assert_eq!(map.first_missing(0..130), Some(0));
    assert!(!map.is_complete());
    assert!(new(0).1.is_complete());
}

#[test]
fn a_file_of_another_form_counts_as_empty() {
    let (file, map) = new(64);
    map.add(ChunkId(3), 10);
    map.record(&Batch { chunks: vec![3], bytes: 10 }).unwrap();
    drop(map);
    let reopen = |count| ChunkMap::open(Arc::new(RealDisk), file.try_clone().unwrap(), count).unwrap();
    assert!(reopen(64).has(ChunkId(3)));
    file.write_all_at(b"x", 0).unwrap();
    assert!(!reopen(64).has(ChunkId(3)));
    assert_eq!(reopen(65).present(), 0);
}

proptest! {
    #[test]
    fn only_recorded_chunks_survive(
        count in 1u32..200,
        steps in prop::collection::vec((prop::collection::vec(0u32..200, 0..20), any::<bool>()), 0..10),
        (from, to) in (0u32..250, 0u32..250),
    ) {
        let (file, map) = new(count);
        let (mut here, mut recorded) = (BTreeSet::new(), BTreeSet::new());
        for (chunks, record) in steps {
            let chunks: Vec<u32> = chunks.into_iter().filter(|chunk| *chunk < count).collect();
            for chunk in chunks {
                prop_assert_eq!(map.add(ChunkId(chunk), 2), here.insert(chunk));
            }
            if record {
                let batch: Vec<u32> = here.difference(&recorded).copied().collect();
                map.record(&Batch { bytes: 2 * batch.len() as u64, chunks: batch }).unwrap();
                recorded.clone_from(&here);
            }
            let missing = (0..count).find(|chunk| !here.contains(chunk));
            prop_assert_eq!(map.first_missing(0..u32::MAX), missing);
            prop_assert_eq!(map.first_missing(from..to), (from..to).find(|chunk| *chunk < count && !here.contains(chunk)));
            prop_assert_eq!(map.present(), here.len() as u64);
            prop_assert_eq!(map.is_complete(), missing.is_none());
        }
        drop(map);
        let map = ChunkMap::open(Arc::new(RealDisk), file, count).unwrap();
        prop_assert!((0..count).all(|chunk| map.has(ChunkId(chunk)) == recorded.contains(&chunk)));
        prop_assert_eq!(map.bytes(), 2 * recorded.len() as u64);
    }
}
