//! `starling mount`: an image's merged tree in a directory, without containerd.
//!
//! One FUSE connection in a private directory shows each layer, one read-only overlay mount merges them at the
//! directory that was asked for. All is served by this process and ends with it.

mod layers;
mod merged;
mod place;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Uid;
use registry::{Platform, RegistryClient, RegistryConfig, open_image};
use store::{Store, StoreConfig};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    convert::LocalConverter,
    output,
    progress::{Progress, human},
};
use layers::Opened;
use merged::Merged;
use place::Place;

/// Mount an image's files, lazily and without containerd, until this is ended with Ctrl-C or SIGTERM.
///
/// The image is named as for docker, or oci:DIR[:TAG] for an OCI image layout. Layers in eStargz form are read as files
/// are; others are fetched whole first, with a message. The mount is read-only, and no set-user-id bits or devices work
/// in it. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The directory to mount it at.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Keep what is fetched in this directory, for the next time; a temporary one, deleted in the end, if not given.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Mount the image for this platform (os/arch[/variant]) rather than this machine's.
    #[arg(long, value_parser = crate::convert::parse_platform)]
    platform: Option<Platform>,
    /// Fetch what is not read too, while nothing else is to be done.
    #[arg(long)]
    background: bool,
    /// Talk to this registry in clear text; may be given several times.
    #[arg(long, value_name = "HOST")]
    insecure: Vec<String>,
    /// Show no progress.
    #[arg(short, long)]
    quiet: bool,
}

/// Ctrl-C and its relatives.
struct Signals([Signal; 3]);

/// Runs the subcommand.
pub(crate) fn run(args: Args) -> Result<()> {
    ensure!(Uid::effective().is_root(), "mounting needs root");
    let directory = &args.directory;
    let cannot = || format!("cannot mount at {}", directory.display());
    ensure!(
        directory.canonicalize().with_context(cannot)?.is_dir(),
        "{} is not a directory",
        directory.display()
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let place = Place::take(args.root.as_deref())?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let ended = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let prepared = tokio::select! {
            prepared = prepare(&args, &place, &interrupted) => prepared,
            () = signals.next() => {
                interrupted.store(true, Ordering::Relaxed);
                bail!("interrupted")
            }
        };
        let (store, merged, opened) = prepared.with_context(|| format!("cannot mount {}", args.image))?;
        signals.next().await;
        let unmounted = tokio::task::spawn_blocking(move || merged.unmount()).await?;
        Progress::new(args.quiet).line(&fetched(&opened));
        // What was fetched is recorded before the place goes or is kept.
        drop((opened, store));
        unmounted
    });
    drop(runtime);
    ended
}

/// Opens the layers and mounts them.
async fn prepare(
    args: &Args,
    place: &Place,
    interrupted: &Arc<AtomicBool>,
) -> Result<(Arc<Store>, Merged, Vec<Opened>)> {
    let start = Instant::now();
    let mut config = RegistryConfig::default();
    for host in &args.insecure {
        config = config.with_insecure_host(host);
    }
    let client = RegistryClient::new(config)?;
    let image = open_image(&args.image, &client)?;
    let platform = args.platform.clone().unwrap_or_else(Platform::current);
    let (_, manifest) = image.platform_manifest(&platform).await?;
    let progress = Progress::new(args.quiet);
    let converter = Arc::new(LocalConverter::start(
        &args.image,
        &client,
        tokio::runtime::Handle::current(),
        place.converted(),
        progress.clone(),
        Arc::clone(interrupted),
    )?);
    let store = Store::open(StoreConfig { background: args.background, ..StoreConfig::new(place.path()) })?;
    let opened = layers::open(&store, &image, &manifest.layers, &converter, &progress).await?;
    if args.background {
        opened.iter().for_each(|opened| opened.layer.start_background());
    }
    let layers: Vec<_> = opened.iter().map(|opened| Arc::clone(&opened.layer)).collect();
    let (connection, empty, target) = (place.connection(), place.empty()?, args.directory.canonicalize()?);
    let runtime = tokio::runtime::Handle::current();
    // Mounting looks names up in our own connection, so it must not hold a thread that serves it.
    let mounting =
        tokio::task::spawn_blocking(move || Merged::mount(&layers, &connection, &empty, target, runtime));
    let merged = mounting.await??;
    let lazy = opened.iter().filter(|opened| opened.lazy).count();
    let (image, at, seconds) = (&args.image, args.directory.display(), start.elapsed().as_secs_f64());
    output::print(&format!(
        "{image} is mounted at {at}, {lazy} of {} layers lazy, {seconds:.2} s",
        opened.len()
    ))?;
    progress.line("Ctrl-C unmounts");
    Ok((store, merged, opened))
}

/// How much of the image was fetched.
fn fetched(opened: &[Opened]) -> String {
    let stats = opened.iter().map(|opened| opened.layer.stats());
    let (present, total) = stats
        .fold((0, 0), |(present, total), stats| (present + stats.bytes_present, total + stats.bytes_total));
    format!("unmounted, {} of {} fetched", human(present), human(total))
}

// === impl Signals ===

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
