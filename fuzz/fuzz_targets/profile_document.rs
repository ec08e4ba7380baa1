//! The document that a profile is exchanged as. What is understood speaks of its own layers only, and survives being
//! written again.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser's file itself: the whole crate would bring a daemon into the instrumented build.
#[path = "../../snapshotter/src/profile/document.rs"]
#[allow(dead_code, unreachable_pub)]
mod document;

use document::Document;

fuzz_target!(|data: &[u8]| {
    let Ok(document) = Document::parse(data) else { return };
    assert!(document.accesses.iter().all(|access| (access.layer as usize) < document.layers.len()));
    assert!(document.files().len() <= document.accesses.len());
    let _ = document.check(estargz::Digest::of(b""), &[]);
    let written = serde_json::to_vec(&document).expect("a document can be written");
    if written.len() <= Document::MOST_BYTES {
        assert_eq!(Document::parse(&written).expect("it was read before"), document);
    }
});
