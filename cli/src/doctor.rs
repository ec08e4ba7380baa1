//! `starling doctor`: whether this machine, containerd's configuration and the daemon are as lazy pulls need them, and
//! what to change.
//!
//! It only looks: nothing is changed, nothing is mounted, and no registry is asked unless an image is named. Every check
//! is a value; those of configurations are pure functions of what was read.

mod check;
mod containerd;
mod cri;
mod daemon;
mod disk;
mod document;
mod image;
mod imports;
mod machine;
mod proxy_plugin;
mod running;
#[cfg(test)]
mod tests;
mod transfer;
mod words;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use registry::Reference;
use snapshotter::{
    admin::SOCKET_NAME,
    config::Config,
    flags::{DEFAULT_ADDRESS, DEFAULT_ROOT},
};

use crate::output;
use check::{Check, State};
use proxy_plugin::Wanted;

/// Look at the kernel, containerd's configuration, the daemon and, with --image, a registry; say what to change.
///
/// Ends with 1 if something fails. Nothing is changed. Run it as root, where containerd and starlingd run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// containerd's configuration, of version 2 or newer; what it imports is read too.
    #[arg(long, value_name = "FILE", default_value = "/etc/containerd/config.toml")]
    config: PathBuf,
    /// containerd's socket.
    #[arg(
        long,
        value_name = "SOCKET",
        env = "CONTAINERD_ADDRESS",
        default_value = "/run/containerd/containerd.sock"
    )]
    containerd: PathBuf,
    /// The name under which containerd has starlingd as a plugin: starling, or stargz for builds on lazy images.
    #[arg(long, default_value = "starling")]
    name: String,
    /// The daemon's socket, its --address.
    #[arg(long, value_name = "SOCKET", default_value = DEFAULT_ADDRESS)]
    address: PathBuf,
    /// The daemon's admin socket, if not in the directory of its --address.
    #[arg(long, value_name = "SOCKET")]
    admin: Option<PathBuf>,
    /// The daemon's directory, its --root.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    root: PathBuf,
    /// The daemon's configuration, its --config; the default one, /etc/starling/config.toml, may be missing.
    #[arg(long, value_name = "FILE")]
    daemon_config: Option<PathBuf>,
    /// Look this image up, with the mirrors and credentials that the daemon's configuration names.
    #[arg(long, value_name = "IMAGE")]
    image: Option<Reference>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: Args) -> Result<()> {
    let checks = args.checks()?;
    if args.json { output::print_json(&checks) } else { output::print(&words::lines(&checks).join("\n")) }?;
    let failed = checks.iter().filter(|check| check.state == State::Failure).count();
    ensure!(failed == 0, "{failed} of {} checks failed", checks.len());
    Ok(())
}

// === impl Args ===

impl Args {
    fn checks(&self) -> Result<Vec<Check>> {
        let wanted = Wanted { name: &self.name, address: &self.address, root: &self.root };
        let admin = self.admin.clone().unwrap_or_else(|| self.address.with_file_name(SOCKET_NAME));
        let loaded = Config::load(self.daemon_config.as_deref());
        let defaults = Config::default();
        let settings = loaded.as_ref().map_or(&defaults, |loaded| &loaded.config);
        let mut checks = machine::checks(&self.root);
        checks.extend(disk::checks(&self.root, settings));
        checks.push(daemon::configuration(&loaded));
        checks.extend(daemon::sockets(wanted, &admin));
        checks.extend(containerd::checks(&self.config, wanted));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        checks.push(runtime.block_on(running::check(&self.containerd, &self.name)));
        checks.push(runtime.block_on(image::check(self.image.as_ref(), &loaded)));
        Ok(checks)
    }
}
