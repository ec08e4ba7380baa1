//! ELF files of images: the beginning of a file, then its dynamic section and strings where it says that they are.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser's file itself: the whole crate would bring a daemon into the instrumented build.
#[path = "../../snapshotter/src/closure/elf.rs"]
#[allow(dead_code, unreachable_pub)]
mod elf;

use elf::{Dynamic, Head};

fuzz_target!(|data: &[u8]| {
    let Some(head) = Head::parse(&data[..data.len().min(4096)]) else { return };
    let part = |range: &Option<std::ops::Range<u64>>| {
        let range = range.clone()?;
        data.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    };
    let _ = part(&head.interpreter).and_then(elf::text);
    let Some(dynamic) = part(&head.dynamic).and_then(|bytes| Dynamic::parse(bytes, &head)) else { return };
    let strings = part(&dynamic.strings).unwrap_or(data);
    assert!(dynamic.needed(strings).iter().all(|name| !name.is_empty() && !name.contains('\0')));
    assert!(dynamic.directories(strings, "/bin").iter().all(|path| path.starts_with('/')));
});
