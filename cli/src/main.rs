//! starling, the command for people: pull, mount, convert, inspect, profile, cache, status, explain, doctor.
//!
//! Every subcommand is a module with an `Args` and a `run`; results go to standard output (as JSON with
//! `--json`), progress and messages to standard error.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "comments of arguments are help texts, where brackets are options"
)]

mod cache;
mod containerd_lines;
mod convert;
mod doctor;
mod explain;
mod inspect;
mod mount;
mod output;
mod profile;
mod progress;
mod pull;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Lazily pulled container images.
#[derive(Debug, Parser)]
#[command(name = "starling", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One line for each subcommand.
#[derive(Debug, Subcommand)]
enum Command {
    Cache(cache::Args),
    Convert(convert::Args),
    Doctor(doctor::Args),
    Explain(explain::Args),
    Inspect(inspect::Args),
    Mount(mount::Args),
    Profile(profile::Args),
    Pull(Box<pull::Args>),
    Status(status::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Cache(args) => cache::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Mount(args) => mount::run(args),
        Command::Profile(args) => profile::run(args),
        Command::Pull(args) => pull::run(*args),
        Command::Status(args) => status::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("starling: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
