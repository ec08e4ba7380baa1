use serde_json::json;

use super::*;
use crate::{
    Index, NodeId,
    decode::{Inflater, verify},
    footer,
};

pub(crate) mod blob;

use blob::Blob;

#[test]
fn a_blob_can_be_read_from_its_end() {
    let long: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
    let mut blob = Blob::default();
    blob.entry(
        json!({"name": "etc/", "type": "dir", "mode": 0o750, "uid": 7, "modtime": "2024-02-29T12:30:05Z"}),
    )
    .file("etc/hello", b"hello world", 100)
    .file("usr/bin/long", &long, 4096)
    .file("empty", b"", 100)
    .packed(&[("p/one", b"first"), ("p/two", b"second")]);
    let blob = blob.finish();

    let size = blob.bytes.len() as u64;
    let footer = footer::parse(&blob.bytes[blob.bytes.len() - footer::MAX_LEN..], size).unwrap();
    assert_eq!(footer.toc_offset, blob.toc_offset);
    let built = build_index(blob.section(), footer.toc_offset, size).unwrap();
    let index = Index::parse(built.index).unwrap();
    assert_eq!(index.toc_digest(), built.toc_digest);

    for (path, data) in [
        ("etc/hello", &b"hello world"[..]),
        ("usr/bin/long", &long),
        ("empty", b""),
        ("p/one", b"first"),
        ("p/two", b"second"),
    ] {
        let node = find(&index, path);
        assert_eq!(read(&index, &blob.bytes, node), data, "{path}");
    }
}

fn find(index: &Index<Vec<u8>>, path: &str) -> NodeId {
    path.split('/').fold(NodeId::ROOT, |dir, name| index.lookup(dir, name.as_bytes()).unwrap().unwrap())
}

/// The content of a file, as the store reads it.
fn read(index: &Index<Vec<u8>>, blob: &[u8], node: NodeId) -> Vec<u8> {
    let file = index.file(node).unwrap();
    let mut data = Vec::new();
    for id in index.chunks_of(node, 0..file.size).unwrap() {
        let chunk = index.chunk(id).unwrap();
        assert_eq!((chunk.node, chunk.content_offset), (node, file.content_offset + data.len() as u64));
        let member = &blob[chunk.member_start as usize..chunk.member_end as usize];
        let mut inflater = Inflater::new();
        let bytes =
            &inflater.inflate(member, chunk.inner_offset + chunk.len).unwrap()[chunk.inner_offset as usize..];
        verify(bytes, &chunk.digest).unwrap();
        data.extend_from_slice(bytes);
    }
    data
}
