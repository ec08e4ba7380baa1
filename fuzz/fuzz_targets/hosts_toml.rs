//! `hosts.toml`: the input is a file. What is understood keeps to its promises, and what a host is says the same when it
//! is read again.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

// The parser's files themselves: the whole crate would bring an HTTP stack into the instrumented build.
#[path = "../../registry/src/hosts/duration.rs"]
#[allow(dead_code)]
mod duration;
#[path = "../../registry/src/hosts/entry.rs"]
#[allow(dead_code)]
mod entry;
#[path = "../../registry/src/hosts/file.rs"]
#[allow(dead_code)]
mod file;
#[path = "../../registry/src/hosts/location.rs"]
#[allow(dead_code)]
mod location;

use location::Location;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let directory = Path::new("/certs.d/example.com");
    let Ok(entries) = file::parse(directory, text) else { return };
    // The registry itself is always the last one.
    assert!(!entries.is_empty());
    for entry in entries {
        let clients = entry.clients.iter().map(|pair| &pair.certificate);
        assert!(entry.ca.iter().flatten().chain(clients).all(|path| path.is_absolute()));
        let Some(location) = entry.location else { continue };
        let url = location.url().expect("an address is a URL");
        assert!(url.has_host() && url.username().is_empty() && url.password().is_none());
        assert!(url.path().starts_with('/') && url.path().ends_with('/'));
        let shown = location.to_string();
        // What was added to a very long address may make it too long.
        if shown.len() <= 2048 {
            assert_eq!(Location::parse(&shown, true).ok().flatten(), Some(location));
        }
    }
});
