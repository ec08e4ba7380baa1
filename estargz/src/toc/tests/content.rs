//! Regular files: their chunks, members and places.

use super::{blob::Blob, *};
use crate::{
    Chunk,
    decode::{Inflater, verify},
    footer,
};

const DIGEST: &str = "sha256:0101010101010101010101010101010101010101010101010101010101010101";

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
    .packed(&[("p/one", b"first"), ("p/two", b"second")])
    .file("last", &long, 40_000);
    let blob = blob.finish();

    let size = blob.bytes.len() as u64;
    let footer = footer::parse(&blob.bytes[blob.bytes.len() - footer::MAX_LEN..], size).unwrap();
    assert_eq!(footer.toc_offset, blob.toc_offset);
    let built = build_index(blob.section(), footer.toc_offset, size).unwrap();
    let index = Index::parse(built.index).unwrap();
    assert_eq!(index.toc_digest(), built.toc_digest);
    assert_eq!((index.blob_size(), index.toc_offset()), (size, blob.toc_offset));

    for (path, data) in [
        ("etc/hello", &b"hello world"[..]),
        ("usr/bin/long", &long),
        ("empty", b""),
        ("p/one", b"first"),
        ("p/two", b"second"),
        ("last", &long),
    ] {
        let node = find(&index, path);
        assert_eq!(index.node(node).unwrap().size(), data.len() as u64);
        assert_eq!(read(&index, &blob.bytes, node), data, "{path}");
    }
    assert_eq!(index.file_bytes(), 11 + 40_000 + 5 + 6 + 40_000);
    assert_eq!(index.content_len(), 4096 * (1 + 10 + 1 + 1 + 10));
}

/// The content of a file, as the store reads it.
fn read(index: &View, blob: &[u8], node: NodeId) -> Vec<u8> {
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

fn file(name: &str, size: i64, more: Value) -> Value {
    let mut entry = json!({"name": name, "type": "reg", "size": size});
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    entry
}

fn chunk(offset: u64, chunk_offset: i64, chunk_size: i64) -> Value {
    json!({"name": "?", "type": "chunk", "offset": offset, "chunkOffset": chunk_offset, "chunkSize": chunk_size, "chunkDigest": DIGEST})
}

fn chunks_of(index: &View, path: &str) -> Vec<Chunk> {
    let node = find(index, path);
    index.chunks_of(node, 0..u64::MAX).unwrap().map(|id| index.chunk(id).unwrap()).collect()
}

#[test]
fn chunks_are_in_blob_order_and_extents_in_file_order() {
    // Files whose content is in the blob backwards, and one chunk between two of another file.
    let index = build(&[
        file("b", 30, json!({"offset": 900, "chunkSize": 10, "chunkDigest": DIGEST})),
        chunk(500, 10, 10),
        chunk(700, 20, 0),
        file("a", 5000, json!({"offset": 600, "chunkDigest": DIGEST})),
        file("p", 7, json!({"offset": 100, "innerOffset": 512, "digest": DIGEST})),
        file("q", 7, json!({"offset": 100, "innerOffset": 0, "digest": DIGEST})),
    ])
    .unwrap();
    let ids: Vec<u32> = index.chunks_of(find(&index, "b"), 0..30).unwrap().map(|id| id.0).collect();
    assert_eq!(ids, [5, 2, 4]);
    let places: Vec<_> = chunks_of(&index, "b")
        .iter()
        .map(|c| (c.member_start, c.member_end, c.len, c.content_offset))
        .collect();
    assert_eq!(places, [(900, TOC_OFFSET, 10, 0), (500, 600, 10, 10), (700, 900, 10, 20)]);
    let [a] = chunks_of(&index, "a")[..] else { panic!("one chunk") };
    assert_eq!((a.member_start, a.member_end, a.content_offset, a.node), (600, 700, 4096, find(&index, "a")));
    let [p] = chunks_of(&index, "p")[..] else { panic!("one chunk") };
    assert_eq!(
        (p.member_start, p.member_end, p.inner_offset, p.digest.to_string().as_str()),
        (100, 500, 512, DIGEST)
    );

    assert_eq!(index.chunks_in(0..100), 0..0);
    assert_eq!(index.chunks_in(100..101), 0..2);
    assert_eq!(index.chunks_in(101..701), 2..5);
    assert_eq!(index.chunks_in(0..u64::MAX), 0..6);
    assert!(index.chunk(crate::ChunkId(6)).is_err());
}

#[test]
fn a_range_gives_the_chunks_that_touch_it() {
    let mut entries = vec![file("before", 1, json!({"offset": 1, "digest": DIGEST}))];
    entries.push(file("f", 95, json!({"offset": 10, "chunkSize": 10, "chunkDigest": DIGEST})));
    entries.extend((1..10).map(|i| chunk(10 + i * 10, i as i64 * 10, if i == 9 { 0 } else { 10 })));
    let index = build(&entries).unwrap();
    let node = find(&index, "f");
    for (range, expected) in [
        (0..95, 1..11),
        (0..1, 1..2),
        (9..10, 1..2),
        (9..11, 1..3),
        (10..20, 2..3),
        (94..200, 10..11),
        (95..200, 0..0),
        (5..5, 0..0),
    ] {
        let ids: Vec<u32> = index.chunks_of(node, range.clone()).unwrap().map(|id| id.0).collect();
        assert_eq!(ids, expected.collect::<Vec<_>>(), "{range:?}");
    }
    assert_eq!(index.chunks_of(node, u64::MAX - 1..u64::MAX).unwrap().len(), 0);
    assert!(index.chunks_of(NodeId::ROOT, 0..1).is_err());
}

#[test]
fn members_end_where_any_entry_starts_also_replaced_and_hidden_ones() {
    let index = build(&[
        file("old", 5, json!({"offset": 200, "digest": DIGEST})),
        file("f", 5, json!({"offset": 100, "digest": DIGEST})),
        file("old", 5, json!({"offset": 400, "digest": DIGEST})),
        file("g", 5, json!({"offset": 300, "digest": DIGEST})),
        file(".prefetch.landmark", 1, json!({"offset": 350})),
    ])
    .unwrap();
    let ends = ["f", "g", "old"].map(|name| chunks_of(&index, name)[0].member_end);
    assert_eq!(ends, [200, 350, TOC_OFFSET]);
    assert_eq!(index.chunk_count(), 3);
    assert_eq!(index.prefetch_end(), Some(350));
}

#[test]
fn a_chunk_without_a_digest_takes_its_files_if_it_is_the_only_one() {
    let other = DIGEST.replace('1', "2");
    for (more, expected) in [
        (json!({"chunkDigest": DIGEST}), DIGEST),
        (json!({"digest": DIGEST}), DIGEST),
        (json!({"chunkDigest": DIGEST, "digest": other}), DIGEST),
        (json!({"chunkDigest": "sha512:00", "digest": other}), other.as_str()),
        (json!({"chunkDigest": "", "digest": other, "chunkSize": 5}), other.as_str()),
    ] {
        let mut entry = file("f", 5, json!({"offset": 9}));
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(chunks_of(&build(&[entry]).unwrap(), "f")[0].digest.to_string(), expected);
    }
    let two = |more: Value, last: Value| {
        let mut entry = file("d/f", 5, json!({"offset": 9, "chunkSize": 3}));
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut second = json!({"name": "", "type": "chunk", "offset": 10, "chunkOffset": 3});
        second.as_object_mut().unwrap().extend(last.as_object().unwrap().clone());
        vec![entry, second, reg("e")]
    };
    assert!(build(&two(json!({"chunkDigest": DIGEST}), json!({"chunkDigest": DIGEST}))).is_ok());
    for entries in [
        two(json!({"digest": DIGEST}), json!({})),
        two(json!({"digest": DIGEST, "chunkDigest": DIGEST}), json!({})),
        two(json!({"digest": DIGEST}), json!({"chunkDigest": DIGEST})),
        vec![file("d/f", 5, json!({"offset": 9, "digest": DIGEST.replace("256", "512")}))],
        vec![file("d/f", 5, json!({"offset": 9}))],
    ] {
        let expected = "TOC entry \"d/f\": has content without a usable SHA-256 digest, so that the layer cannot be verified";
        assert_eq!(refusal(&entries), expected);
    }
    assert!(build(&[file("empty", 0, json!({}))]).is_ok());
}

#[test]
fn content_that_cannot_be_is_refused_by_name() {
    let ok = json!({"offset": 9, "chunkDigest": DIGEST});
    let first = |size: i64, chunk_size: i64| {
        file("f", size, json!({"offset": 9, "chunkSize": chunk_size, "chunkDigest": DIGEST}))
    };
    for (entries, expected) in [
        (vec![file("f", -1, ok.clone())], "its size is -1"),
        (vec![file("f", i64::MIN, ok.clone())], "its size is -9223372036854775808"),
        (
            vec![file("f", i64::MAX, ok.clone())],
            "the end of a chunk in its compressed member is 9223372036854775807, the limit is 1134695999855544",
        ),
        (vec![file("f", 5, json!({"offset": -9, "chunkDigest": DIGEST}))], "its offset is -9"),
        (
            vec![file("f", 5, json!({"offset": 9, "innerOffset": -9, "chunkDigest": DIGEST}))],
            "its inner offset is -9",
        ),
        (
            vec![file("f", 5, json!({"offset": TOC_OFFSET, "chunkDigest": DIGEST}))],
            "the offset of its content is 1099511627776, the limit is 1099511627776",
        ),
        (vec![file("f", 5, json!({"chunkDigest": DIGEST}))], "has content without an offset"),
        (vec![first(5, 6)], "has a chunk beyond its end"),
        (vec![first(5, -1)], "its chunk size is -1"),
        (vec![first(5, 3)], "has chunks that do not reach its end"),
        (vec![first(5, 3), reg("g")], "has chunks that do not reach its end"),
        (vec![first(5, 3), chunk(10, 2, 2)], "has chunks that overlap or leave a gap"),
        (vec![first(5, 3), chunk(10, 4, 1)], "has chunks that overlap or leave a gap"),
        (vec![first(5, 3), chunk(10, 3, 3)], "has a chunk beyond its end"),
        (vec![first(5, 3), chunk(10, 3, 2), chunk(11, 5, 0)], "has a chunk beyond its end"),
        (vec![first(5, 0), chunk(10, 5, 0)], "has a chunk beyond its end"),
        (vec![first(5, 3), chunk(10, -3, 2)], "its chunk offset is -3"),
        (vec![file("f", 0, json!({})), chunk(10, 0, 1)], "has a chunk beyond its end"),
        (
            vec![file("f", 9000, json!({"offset": TOC_OFFSET - 8, "chunkDigest": DIGEST}))],
            "the end of a chunk in its compressed member is 9000, the limit is 8256",
        ),
        (
            vec![file(
                "f",
                1,
                json!({"offset": TOC_OFFSET - 8, "innerOffset": i64::MAX, "chunkDigest": DIGEST}),
            )],
            "the end of a chunk in its compressed member is 9223372036854775808, the limit is 8256",
        ),
    ] {
        assert_eq!(refusal(&entries), format!("TOC entry \"f\": {expected}"));
    }
    for before in [vec![], vec![dir("d")], vec![json!({"name": "l", "type": "symlink", "linkName": "f"})]] {
        let entries = [before, vec![chunk(9, 0, 5)]].concat();
        assert_eq!(refusal(&entries), "TOC entry \"?\": is a chunk that follows no regular file");
    }
}

#[test]
fn content_as_a_whole_is_bounded() {
    let huge = |name: &str| file(name, 1 << 42, json!({"offset": 9, "chunkDigest": DIGEST}));
    assert!(build(&[huge("a"), huge("b")]).is_ok());
    let error = build(&[huge("a"), huge("b"), huge("c")]).unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.reason()),
        ("the TOC has more than 8796093022208 bytes of content", Reason::OverLimit)
    );
    // What is replaced takes no room.
    assert_eq!(build(&[huge("a"), huge("b"), huge("b")]).unwrap().content_len(), 1 << 43);
}
