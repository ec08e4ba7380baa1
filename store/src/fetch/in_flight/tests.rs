//! The table's bookkeeping.

use std::sync::Arc;

use estargz::ChunkId;

use super::{
    in_flight::{InFlight, Outcome, Tracked},
    window::{Member, Window},
};
use crate::{Class, ReadError};

#[test]
fn an_empty_table_takes_no_memory() {
    let in_flight = InFlight::default();
    let chunks: Vec<_> = (0..4096).map(ChunkId).collect();
    let members = vec![Member { span: 0..1, need: 1, chunks: chunks.clone(), passing: false }];
    let window = Arc::new(Window::new(members, Class::Background, 0));
    in_flight.lock().insert(&window);
    assert!(in_flight.lock().kept() >= chunks.len());
    chunks.iter().for_each(|chunk| in_flight.settle(*chunk, || Outcome::Stored));
    assert_eq!(in_flight.lock().kept(), 0);
}

#[test]
fn windows_get_shorter_the_more_is_on_its_way_over_all_layers() {
    let tracked = Tracked::default();
    let layers = [InFlight::new(&tracked), InFlight::new(&tracked)];
    let window = |layer: &InFlight, chunks: std::ops::Range<u32>| {
        let chunks = chunks.map(ChunkId).collect();
        let members = vec![Member { span: 0..1, need: 1, chunks, passing: false }];
        layer.lock().insert(&Arc::new(Window::new(members, Class::Demand, 0)));
    };
    let free = tracked.room();
    window(&layers[0], 0..3000);
    let less = tracked.room();
    assert!(less < free);
    window(&layers[1], 0..20_000);
    assert!(tracked.room() as usize == Tracked::LEAST && tracked.is_full());
    (0..20_000).for_each(|chunk| layers[1].settle(ChunkId(chunk), || Outcome::Stored));
    assert_eq!(tracked.room(), less);
    drop(layers);
    assert_eq!(tracked.room(), free);
}

#[test]
fn what_passes_is_on_its_way_only_once_it_was_taken() {
    let in_flight = InFlight::default();
    let member = |chunks: [u32; 2], passing| {
        let chunks = chunks.map(ChunkId).to_vec();
        Member { span: 0..1, need: 1, chunks, passing }
    };
    let window = Arc::new(Window::new(vec![member([1, 2], false), member([3, 4], true)], Class::Prefetch, 0));
    in_flight.lock().insert(&window);
    assert_eq!(in_flight.len(), 2);
    in_flight.lock().add(ChunkId(3), &window);
    let waiting = in_flight.lock().join(ChunkId(3)).unwrap().waiting;
    in_flight.abandon(&window, &ReadError::Closed);
    assert!(matches!(waiting.blocking_recv(), Ok(Outcome::Failed(ReadError::Closed))));
    assert_eq!(in_flight.len(), 0);
}
