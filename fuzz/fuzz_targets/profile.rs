//! The file of a layer's profile. What is understood must be written again to the byte, and adding to it what it has
//! must change nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser's file itself: the whole crate would bring its network and threads into the instrumented build.
#[path = "../../store/src/profile/file.rs"]
#[allow(dead_code, unreachable_pub)]
mod file;

use file::Profile;

/// As in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerKey {
    pub blob: estargz::Digest,
    pub toc: estargz::Digest,
}

fuzz_target!(|data: &[u8]| {
    check(data);
    // A checksum is not found by chance.
    check(&[data, estargz::Digest::of(data).as_bytes().as_slice()].concat());
});

fn check(bytes: &[u8]) {
    let Ok(mut profile) = Profile::parse(bytes) else { return };
    let before = profile.clone();
    assert_eq!(Profile::parse(&profile.encode()).as_ref(), Ok(&before));
    assert!(!profile.add(&before.accesses().to_vec()));
    assert_eq!(profile, before);
}
