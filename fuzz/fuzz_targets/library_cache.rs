//! `/etc/ld.so.cache` of images.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The parsers' files themselves: the whole crate would bring a daemon into the instrumented build.
#[path = "../../snapshotter/src/closure/cache.rs"]
#[allow(dead_code, unreachable_pub)]
mod cache;
#[path = "../../snapshotter/src/closure/elf.rs"]
#[allow(dead_code, unreachable_pub)]
mod elf;

fuzz_target!(|data: &[u8]| {
    let Some(cache) = cache::Cache::parse(data) else { return };
    assert!(cache.places("libc.so.6").iter().all(|path| path.starts_with('/')));
});
