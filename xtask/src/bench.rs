//! `cargo xtask bench`: the package `benches`, with what it needs set up first, in a process of its own that
//! leaves nothing behind.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{setup, supervise};

/// Which benchmark.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    benchmark: Benchmark,
    /// Where everything happens; set by the process that clears it
    #[arg(long, hide = true, global = true)]
    scratch: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// From the request to pull until the program is ready, against other snapshotters
    Startup(::bench::startup::Options),
    /// What reading costs once everything is there, against other snapshotters
    Datapath(::bench::datapath::Options),
    /// What the daemon holds in memory for a hundred layers with a million files
    Memory(::bench::memory::Options),
    /// Print the tables of a recorded run of `startup`
    Show {
        /// The run's JSON
        record: PathBuf,
        /// Where its picture goes
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
}

/// Sets up and measures.
///
/// # Errors
/// Something of the set-up is missing, or a measurement failed.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let Options { benchmark, scratch } = options;
    match (benchmark, scratch) {
        (Benchmark::Show { record, svg }, _) => ::bench::startup::show(record, svg.as_deref())?,
        (_, None) => return supervise::supervise("starling-bench-"),
        (Benchmark::Datapath(options), Some(scratch)) => {
            setup::packages()?;
            ::bench::datapath::run(options, scratch)?;
        }
        (Benchmark::Memory(options), Some(scratch)) => {
            setup::packages()?;
            ::bench::memory::run(options, scratch)?;
        }
        (Benchmark::Startup(options), Some(scratch)) => {
            setup::packages()?;
            for (program, package) in options.builders() {
                setup::program(program, package)?;
            }
            ::bench::startup::run(options, scratch)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
