//! `cargo xtask stress`: the package `stress`, with what it needs set up first, in a process of its own that leaves
//! nothing behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Args;
use testkit::{peers::go_tools, requires};

use crate::{setup, shell, supervise};

/// What to do.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    #[command(flatten)]
    stress: ::stress::Options,
    /// Where everything happens; set by the process that clears it
    #[arg(long, hide = true)]
    scratch: Option<PathBuf>,
}

/// Sets up and runs. The figures are the output.
///
/// # Errors
/// Something of the set-up is missing.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let Options { stress, scratch } = options;
    if stress.plan {
        print!("{}", ::stress::plan(stress));
        return Ok(ExitCode::SUCCESS);
    }
    let Some(scratch) = scratch else { return supervise::supervise("starling-stress-") };
    requires::ensure_mounts("stress")?;
    setup::packages()?;
    for tool in go_tools::CONTAINERD_TOOLS {
        go_tools::ensure(tool)?;
    }
    let report = ::stress::run(stress, &programs(stress)?, scratch)?;
    println!("{report}");
    if let Some(path) = &stress.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The directory that holds our programs: those of the development build, which tests use as well.
fn programs(options: &::stress::Options) -> Result<PathBuf> {
    if let Some(programs) = &options.programs {
        return programs.canonicalize().with_context(|| format!("find {}", programs.display()));
    }
    shell::stage("programs");
    shell::run(&mut shell::cargo(&["build", "--workspace", "--bins"]))?;
    Ok(Path::new(&shell::root()).join("target/debug"))
}
