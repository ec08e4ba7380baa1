//! Blobs kept with the sources, in `testdata/golden`: they are read without Go.

use std::{collections::BTreeMap, fs, path::PathBuf};

use estargz::{
    footer,
    write::{self, Options},
};
use testkit::golden::{GoldenBlob, GoldenNode};

use crate::layer::{Decoder, Layer, assert_same, listed, mounted};

fn stored(name: &str) -> Vec<u8> {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/golden"));
    fs::read(dir.join(name)).unwrap()
}

/// What the library said of the blob `name`.
fn stored_list(name: &str) -> BTreeMap<String, GoldenNode> {
    let list = stored(&format!("{name}.list"));
    let nodes = serde_json::Deserializer::from_slice(&list).into_iter().collect::<Result<Vec<_>, _>>();
    mounted(listed(nodes.unwrap()))
}

#[track_caller]
fn is_read(name: &str, kind: footer::Kind) {
    let blob = stored(&format!("{name}.esgz"));
    let footer = footer::parse(&blob[blob.len() - footer::MAX_LEN..], blob.len() as u64).unwrap();
    assert_eq!(footer.kind, kind);
    let built: GoldenBlob = serde_json::from_slice(&stored(&format!("{name}.json"))).unwrap();
    for decoder in [Decoder::OneGo, Decoder::Stream] {
        let layer = Layer::open(&blob, decoder);
        assert_eq!(layer.toc_digest.to_string(), built.toc_digest);
        assert_same(&layer.nodes(), &stored_list(name));
    }
}

#[test]
fn stored_blobs_are_read() {
    for name in ["default", "packed", "chunked", "prioritized"] {
        is_read(name, footer::Kind::Estargz);
    }
}

#[test]
fn the_footer_of_stargz_is_read() {
    is_read("legacy", footer::Kind::LegacyStargz);
}

#[test]
fn the_stored_archive_becomes_the_same_layer() {
    let built = write::build(&stored("small.tar"), &Options::default()).unwrap();
    assert_same(&Layer::open(&built.blob, Decoder::OneGo).nodes(), &stored_list("default"));
}
