//! `cargo xtask demo`: Starling's main job with everything embedded. A registry, containerd and `starlingd`
//! run in a scratch directory; an image is pulled and run lazily and by full pull; times, bytes and requests
//! of both are printed side by side. Progress goes to the error stream, the result to the output.

mod images;
mod report;
mod start;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Args;
use testkit::{peers::go_tools, requires};

use crate::{setup, shell, supervise};
use images::Images;

/// What to show.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Any image that can be reached, instead of the built-in sample; it must end by itself when run
    #[arg(long, value_name = "REF")]
    image: Option<String>,
    /// A line of the image's output that means it is ready; the end of the run when not given
    #[arg(long, value_name = "TEXT")]
    ready: Option<String>,
    /// Take the larger sample: scikit-learn on Debian, three layers
    #[arg(long, conflicts_with = "image")]
    large: bool,
    /// Cold starts of each kind; the table shows medians
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Delay of each request at the registry, in milliseconds
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Bandwidth of the registry, in Mbit/s; unlimited when 0
    #[arg(long, default_value_t = 0)]
    mbit: u64,
    /// Also measure stargz-snapshotter, the published library in its default configuration
    #[arg(long)]
    rival: bool,
    /// Print the figures as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Take starling and starlingd from this directory instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Where everything happens; set by the process that clears it
    #[arg(long, hide = true)]
    scratch: Option<PathBuf>,
}

/// Sets up, measures and prints, in a process of its own that leaves nothing behind.
///
/// # Errors
/// Something of the set-up is missing, or a pull or run fails.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    match &options.scratch {
        Some(scratch) => measure(options, scratch).map(|()| ExitCode::SUCCESS),
        None => supervise::supervise("starling-demo-"),
    }
}

fn measure(options: &Options, scratch: &Path) -> Result<()> {
    requires::ensure_mounts("the demo")?;
    setup::packages()?;
    shell::stage("peers: containerd, runc (pinned Go tools, built once)");
    for tool in go_tools::CONTAINERD_TOOLS {
        eprintln!("{} {}", tool.name, tool.version);
        go_tools::ensure(tool)?;
    }
    let programs = programs(options)?;
    shell::stage("image: converted to eStargz and pushed to a local registry");
    let images = Images::prepare(scratch, programs, options)?;
    shell::stage(&format!("{} cold starts each way, everything fresh each time", options.runs));
    let ready_line = options.ready.as_deref().or(options.image.is_none().then_some("ready"));
    let mut samples = Vec::new();
    for run in 0..options.runs {
        // In turn, the order swapped each time: what the first leaves in caches of the machine helps both.
        let mut kinds = vec![start::Kind::FullPull, start::Kind::Lazy];
        kinds.extend(options.rival.then_some(start::Kind::Rival));
        if run % 2 == 1 {
            kinds.reverse();
        }
        for kind in kinds {
            let sample = start::cold_start(scratch, &images, kind, ready_line)
                .with_context(|| format!("{kind} cold start"))?;
            eprintln!("{sample}");
            samples.push(sample);
        }
    }
    report::print(&samples, options.json)
}

/// The directory that holds our programs.
fn programs(options: &Options) -> Result<PathBuf> {
    if let Some(programs) = &options.programs {
        return programs.canonicalize().with_context(|| format!("find {}", programs.display()));
    }
    shell::stage("starlingd and starling, release build");
    shell::run(&mut shell::cargo(&["build", "--release", "-p", "snapshotter", "-p", "cli", "--bins"]))?;
    Ok(shell::root().join("target/release"))
}
