//! Repository tasks: `cargo xtask demo`, `cargo xtask test` and what they are made of.
//!
//! Every task sets up what it needs (Debian packages, Go tools at pinned versions) before it starts, so
//! the two commands of the README work on a fresh Debian machine with Rust.

mod bench;
mod demo;
mod deny;
mod fuzz;
mod setup;
mod shell;
mod stress;
mod supervise;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Repository tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, about)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what the other tasks need: Debian packages, and Go tools at pinned versions
    Setup,
    /// Run every test: unit, property, fuzz (short), FUSE, containerd's own suite, end to end
    Test(test::Options),
    /// Run each fuzz target for a bounded time
    Fuzz(fuzz::Options),
    /// Check licences, sources and advisories of every dependency
    Deny,
    /// Pull and run an image lazily and by full pull, and print times, bytes and requests
    Demo(demo::Options),
    /// Measure starts and the data path against other snapshotters
    Bench(bench::Options),
    /// Read real images in many ways while faults strike, and compare every byte
    Stress(stress::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup => setup::run().map(|()| ExitCode::SUCCESS),
        Task::Test(options) => test::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(options) => fuzz::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Deny => deny::run().map(|()| ExitCode::SUCCESS),
        Task::Demo(options) => demo::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Stress(options) => stress::run(&options),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
