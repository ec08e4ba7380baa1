//! `cargo xtask test`: every test there is, in one command.

use anyhow::Result;
use clap::Args;

use crate::{fuzz, setup, shell};

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
    shell::run(test.args(&options.cargo))
}
