//! `Content-Range`: the input is the header's value. What is understood must make sense.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser's file itself: the whole crate would bring an HTTP stack into the instrumented build.
#[path = "../../registry/src/content_range.rs"]
#[allow(dead_code, unreachable_pub)]
mod content_range;

use content_range::ContentRange;

fuzz_target!(|data: &[u8]| {
    if let Some(ContentRange::Satisfied { first, end, total }) = ContentRange::parse(data) {
        assert!(first < end && total.is_none_or(|total| end <= total));
    }
});
