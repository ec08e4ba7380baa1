//! TOCs: the input is the JSON, or with a first byte of 0 the whole compressed section. What is built must
//! open, and everything in it must be readable.

#![no_main]

use estargz::{ChunkId, Index, NodeId, toc::build_index};
use libfuzzer_sys::fuzz_target;

#[path = "../../estargz/src/toc/tests/index_walk.rs"]
mod index_walk;

#[path = "../section.rs"]
mod section;

fuzz_target!(|data: &[u8]| {
    let section = section::of(data);
    let Ok(built) = build_index(section.as_slice(), section::TOC_OFFSET, section::BLOB_SIZE) else { return };
    let index = Index::parse(built.index).expect("what was built opens");
    index_walk::touch_everything(&index);
    for id in (1..=index.node_count()).filter_map(NodeId::new) {
        let node = index.node(id).expect("every node is there");
        assert!(index.path(id).is_ok() && node.nlink() > 0);
        if let Ok(file) = index.file(id) {
            let chunks = index.chunks_of(id, 0..file.size).expect("a file has chunks");
            let covered: u64 = chunks.map(|id| index.chunk(id).expect("every chunk is there").len).sum();
            assert_eq!(covered, file.size);
        }
    }
    for id in 0..index.chunk_count() {
        let chunk = index.chunk(ChunkId(id)).expect("every chunk is there");
        assert!(
            chunk.member_start < chunk.member_end && chunk.content_offset + chunk.len <= index.content_len()
        );
    }
});
