//! `WWW-Authenticate`: the input is one header value a line. What is understood must survive being written
//! again.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser's file itself: the whole crate would bring an HTTP stack into the instrumented build.
#[path = "../../registry/src/challenge.rs"]
#[allow(dead_code, unreachable_pub)]
mod challenge;

use challenge::Challenge;

fuzz_target!(|data: &[u8]| {
    let Some(Challenge::Bearer(bearer)) = Challenge::best(data.split(|b| *b == b'\n')) else { return };
    assert!(!bearer.realm.is_empty());
    let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut header = format!("Bearer realm=\"{}\"", quote(&bearer.realm));
    for (name, value) in [("service", &bearer.service), ("scope", &bearer.scope), ("error", &bearer.error)] {
        if let Some(value) = value {
            header.push_str(&format!(",{name}=\"{}\"", quote(value)));
        }
    }
    // A header is cut at 16 KiB, so that only shorter ones can come back whole.
    if header.len() <= 16 * 1024 {
        assert_eq!(Challenge::best([header.as_bytes()]), Some(Challenge::Bearer(bearer)));
    }
});
