//! containerd's own test suite for snapshotters (`core/snapshots/testsuite`), one daemon for each sub-test.
//!
//! The program under test is `starlingd`, or that of the variable `STARLINGD`, with the configuration file `SUITE_CONFIG` if
//! that is set.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{path::Path, process::Command};

/// What the suite has in containerd v2.4.2.
const SUB_TESTS: usize = 21;

#[test]
fn containerds_suite_is_green() {
    run("TestSuite");
}

/// The same as containerd's clients see it: behind its metadata store, which gives snapshots names of its own.
#[test]
fn containerds_suite_is_green_through_its_metadata_store() {
    run("TestSuiteThroughMetadata");
}

/// Runs a Go test that is a suite of sub-tests.
fn run(name: &str) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: the suite mounts, which takes root");
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        println!("skipped: the daemon wants /dev/fuse");
        return;
    }
    if Command::new("go").arg("version").output().is_err() {
        println!("skipped: there is no go");
        return;
    }
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/go");
    let daemon = std::env::var_os("STARLINGD").unwrap_or_else(|| env!("CARGO_BIN_EXE_starlingd").into());
    let suite = Command::new("go")
        .args(["test", "-count=1", "-parallel=4", "-timeout=5m", "-v"])
        .args([&format!("-run=^{name}$"), "./suite"])
        .current_dir(module)
        .env("STARLINGD", daemon)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&suite.stdout);
    let prefix = format!("{name}/");
    let result = |line: &&str| line.trim_start().starts_with("--- ") && line.contains(&prefix);
    let results: Vec<&str> = output.lines().filter(result).map(str::trim_start).collect();
    let passed = results.iter().filter(|line| line.starts_with("--- PASS")).count();
    assert!(
        suite.status.success() && passed == SUB_TESTS && results.len() == SUB_TESTS,
        "{passed} of {SUB_TESTS} passed\n{}\n{}\n{}",
        results.join("\n"),
        output.lines().filter(|line| !line.contains("level=debug")).collect::<Vec<_>>().join("\n"),
        String::from_utf8_lossy(&suite.stderr),
    );
}
