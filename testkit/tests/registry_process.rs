//! The registry as a process: what it is told, what it counts, and how it delays.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use testkit::{
    Shaping,
    oci_layout::{ImageConfig, LayoutBuilder},
    registry_process::RegistryProcess,
};

fn registry() -> RegistryProcess {
    RegistryProcess::start(Path::new(env!("CARGO_BIN_EXE_testkit-registry"))).unwrap()
}

/// Asks for the manifest on `stream`, and gives the answer's first bytes.
fn ask(stream: &mut TcpStream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = [0; 512];
    let read = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[test]
fn serves_layouts_counts_what_it_sends_and_forgets_it() {
    let dir = tempfile::tempdir().unwrap();
    let layout = LayoutBuilder::create(dir.path()).unwrap();
    layout.finish("one", &ImageConfig::default()).unwrap();
    let registry = registry();
    registry.add_layout(dir.path(), "one", "image", "tag").unwrap();
    assert!(registry.add_layout(dir.path(), "other", "image", "tag").is_err());
    let mut stream = TcpStream::connect(registry.host()).unwrap();
    assert!(ask(&mut stream, "/v2/image/manifests/tag").starts_with("HTTP/1.1 200"));
    let traffic = registry.traffic().unwrap();
    assert_eq!((traffic.requests, traffic.blob_requests), (1, 0));
    assert!(traffic.bytes > 100, "{traffic:?}");
    registry.clear_requests().unwrap();
    assert_eq!(registry.traffic().unwrap().requests, 0);
}

#[test]
fn a_connection_costs_a_round_trip_more_than_a_request() {
    const ROUND_TRIP: Duration = Duration::from_millis(80);
    let registry = registry();
    registry.set_shaping(Shaping { latency: ROUND_TRIP, bits_per_second: None }).unwrap();
    let began = Instant::now();
    let mut stream = TcpStream::connect(registry.host()).unwrap();
    ask(&mut stream, "/v2/");
    let first = began.elapsed();
    assert!(first >= 2 * ROUND_TRIP, "{first:?}");
    let began = Instant::now();
    ask(&mut stream, "/v2/");
    assert!(began.elapsed() >= ROUND_TRIP);
}
