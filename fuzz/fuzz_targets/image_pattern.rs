//! Patterns of kubelet's credential providers and keys of pull secrets: the input is a pattern, a line end and an image.
//! A pattern without a glob means what it says.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser's file itself: the whole crate would bring an HTTP stack into the instrumented build.
#[path = "../../registry/src/credentials/pattern.rs"]
#[allow(dead_code, unreachable_pub)]
mod pattern;

use pattern::Pattern;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, image) = text.split_once('\n').unwrap_or((text, "example.com:5000/team/app"));
    let (host, repository) = image.split_once('/').unwrap_or((image, ""));
    let Some(pattern) = Pattern::parse(text) else { return };
    let matches = pattern.matches(host, repository);
    if !text.contains(['*', '?', '[', ']', '\\', ':']) && !host.contains(['[', ']', ':']) {
        let (name, path) = text.split_once('/').unwrap_or((text, ""));
        assert_eq!(matches, name == host && repository.starts_with(path));
    }
});
