//! `cargo xtask test`: every test there is, in one command, and a short stress run.

use anyhow::Result;
use clap::Args;
use testkit::{requires, sample_image};

use crate::{fuzz, setup, shell};

/// How long faults strike in the short form, in seconds; setting up and looking back take as long again.
const SHORT_STRESS: u32 = 20;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave the fuzz targets out
    #[arg(long)]
    no_fuzz: bool,
    /// How long each fuzz target runs, in seconds
    #[arg(long, default_value_t = 5)]
    fuzz_seconds: u32,
    /// Given to cargo test, for example `-p store` or a test's name
    #[arg(last = true)]
    cargo: Vec<String>,
}

/// Sets up, builds and tests.
///
/// # Errors
/// Something is missing, does not build, or a test fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run()?;
    shell::stage("programs");
    shell::run(&mut shell::cargo(&["build", "--workspace", "--bins", "--examples"]))?;
    if !options.no_fuzz && options.cargo.is_empty() {
        fuzz::run(&fuzz::Options::for_each_target(options.fuzz_seconds))?;
    }
    shell::stage("tests");
    let mut test = shell::cargo(&["test"]);
    if options.cargo.is_empty() {
        test.args(["--workspace", "--no-fail-fast"]);
    }
    shell::run(test.args(&options.cargo))?;
    if options.cargo.is_empty() {
        stress()?;
    }
    Ok(())
}

/// The short form of `cargo xtask stress`, on the programs that are built by now. A seed of its own each time.
fn stress() -> Result<()> {
    shell::stage("stress, short form");
    if let Some(why) = requires::fuse().or_else(requires::go).or_else(sample_image::missing) {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let programs = shell::root().join("target/debug");
    // Not the program that runs: the build may have put another one in its place.
    let xtask = programs.join("xtask");
    let seconds = SHORT_STRESS.to_string();
    let mut command =
        shell::command(&xtask.to_string_lossy(), &["stress", "--seconds", &seconds, "--programs"]);
    shell::run(command.arg(programs))
}
