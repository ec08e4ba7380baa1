//! `cargo xtask demo`: Starling's main job with everything embedded. A registry, containerd and `starlingd`
//! run in a scratch directory; an image is pulled and run lazily and by full pull; times, bytes and requests
//! of both are printed side by side.

mod cleanup;
mod images;
mod report;
mod start;

use anyhow::{Context, Result};
use clap::Args;
use nix::unistd::Uid;
use testkit::{peers::go_tools, requires};

use crate::{setup, shell};
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
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Sets up, measures and prints.
///
/// # Errors
/// Something of the set-up is missing, or a pull or run fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !Uid::effective().is_root() {
        anyhow::bail!("the demo mounts file systems: run it as root");
    }
    if let Some(why) = requires::fuse() {
        anyhow::bail!("the demo needs FUSE: {why}");
    }
    setup::packages()?;
    shell::stage("peers: containerd, runc (pinned Go tools, built once)");
    for tool in go_tools::CONTAINERD_TOOLS {
        println!("{} {}", tool.name, tool.version);
        go_tools::ensure(tool)?;
    }
    shell::stage("starlingd and starling, release build");
    shell::run(&mut shell::cargo(&["build", "--release", "-p", "snapshotter", "-p", "cli", "--bins"]))?;
    let scratch = cleanup::Guarded::new()?;
    shell::stage("image: converted to eStargz and pushed to a local registry");
    let images = Images::prepare(scratch.path(), options)?;
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
            let sample = start::cold_start(scratch.path(), &images, kind, ready_line)
                .with_context(|| format!("{kind} cold start"))?;
            println!("{sample}");
            samples.push(sample);
        }
    }
    report::print(&samples, options.json)
}
