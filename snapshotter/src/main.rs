//! `starlingd`: reads flags and configuration, starts the daemon, serves until it is told to stop.

#[cfg(target_env = "gnu")]
mod heap;

use std::process::ExitCode;

use nix::sys::{
    signal::{SigSet, Signal},
    stat::{Mode, umask},
};
use snapshotter::{config::Config, crash, daemon::Daemon, fd_store, flags::Flags, logging};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let flags = Flags::from_command_line();
    if flags.version {
        println!("{}", Flags::version_line());
        return ExitCode::SUCCESS;
    }
    #[cfg(target_env = "gnu")]
    heap::bound();
    logging::start(flags.log_level);
    if let Err(error) = crash::contain() {
        tracing::warn!(%error, "a crash may leave a core dump, with secrets in it");
    }
    // What the daemon makes is for its own user alone. Roots of containers have their modes set apart.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = logging::chain(error.as_ref()), "the daemon ends");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    let inherited = fd_store::inherited();
    let loaded = Config::load(flags.config.as_deref())?;
    loaded.log();
    accept_signals()?;
    #[cfg(target_env = "gnu")]
    heap::trim_regularly()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let daemon = Daemon::start(flags, loaded, inherited).await?;
        daemon.serve(stop).await?;
        Ok(())
    });
    // Dropped, it would drop the reads that wait for bytes, and each would be answered with an error. A successor is asked for
    // what is still unanswered when this process is gone.
    std::mem::forget(runtime);
    served
}

/// A parent that waits for its own signals may have blocked them for its children too (the mask outlives exec): the
/// daemon would not hear that it is to stop. Must be called before other threads are started, which inherit the mask.
fn accept_signals() -> nix::Result<()> {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]).thread_unblock()
}
