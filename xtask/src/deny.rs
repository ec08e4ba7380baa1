//! `cargo xtask deny`: licences, bans, sources and advisories of every dependency, by cargo-deny.

use std::process::Command;

use anyhow::Result;

use crate::{setup, shell};

/// Where cargo-deny fetches the advisories from (its default).
const ADVISORIES: &str = "https://github.com/RustSec/advisory-db";

/// Checks what `deny.toml` says.
///
/// # Errors
/// A check fails, or cargo-deny cannot be installed.
pub(crate) fn run() -> Result<()> {
    let program = setup::cargo_deny()?;
    shell::stage("dependencies");
    let program = program.to_string_lossy();
    shell::run(&mut shell::command(
        &program,
        &["check", "--hide-inclusion-graph", "bans", "licenses", "sources"],
    ))?;
    let reached = Command::new("git").args(["ls-remote", "--quiet", ADVISORIES, "HEAD"]).output()?;
    if !reached.status.success() {
        let why = String::from_utf8_lossy(&reached.stderr);
        eprintln!("skipped: advisories are not checked: {}", why.trim());
        return Ok(());
    }
    shell::run(&mut shell::command(&program, &["check", "advisories"]))
}
