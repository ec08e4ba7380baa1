//! The table's bookkeeping.

use std::sync::Arc;

use estargz::ChunkId;

use super::{
    in_flight::{InFlight, Outcome, Tracked},
    window::{Member, Window},
};
use crate::Class;

#[test]
fn an_empty_table_takes_no_memory() {
    let in_flight = InFlight::default();
    let chunks: Vec<_> = (0..4096).map(ChunkId).collect();
    let members = vec![Member { span: 0..1, need: 1, chunks: chunks.clone() }];
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
        let members = vec![Member { span: 0..1, need: 1, chunks: chunks.map(ChunkId).collect() }];
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
