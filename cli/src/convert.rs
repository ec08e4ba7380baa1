//! `starling convert`: an image's layers become eStargz layers, everything else stays what it was.

mod layer;
mod local;
mod media;
mod origin;
mod pool;
mod report;
mod rewrite;
mod target;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{BufRead, BufReader},
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result};
use estargz::{
    Digest,
    write::{Level, Options},
};
use parking_lot::Mutex;
use registry::{Descriptor, Platform, RegistryClient, RegistryConfig};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use crate::{
    output,
    progress::{Progress, human},
};
use layer::{Outcome, Workshop};
pub(crate) use local::LocalConverter;
use origin::Origin;
use pool::Pool;
use report::{Report, short};
pub(crate) use rewrite::TOC_DIGEST;
use rewrite::{Task, Writer, task};
use target::Target;

/// A chunk is held in memory several times for each thread while it is compressed.
const CHUNK_SIZES: std::ops::RangeInclusive<u64> = 4096..=64 << 20;
/// Reading a file from a shared piece means to decompress what comes before it.
const MAX_PACK: u64 = 16 << 20;

/// Convert an image so that it can be pulled lazily.
///
/// Images are named as for docker (registry/repository:tag) or oci:DIR[:TAG] for an OCI image layout. All platforms
/// of a multi-platform image are converted, attestations are carried over, and a layer that cannot be converted
/// stays as it is, with a message.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image to convert.
    #[arg(value_name = "SRC")]
    source: String,
    /// Where the converted image goes.
    #[arg(value_name = "DST")]
    target: String,
    /// Convert for this platform only (os/arch[/variant]); may be given several times.
    #[arg(long, value_parser = parse_platform)]
    platform: Vec<Platform>,
    /// How hard to compress, from 1 (fast) to 12 (small).
    #[arg(long, default_value_t = Level::default().get(), value_parser = clap::value_parser!(u8).range(1..=12))]
    level: u8,
    /// The longest chunk of a file, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "4194304", value_parser = parse_chunk_size)]
    chunk_size: NonZeroU64,
    /// Let small files share compressed pieces of this many bytes: a smaller image, but stargz-snapshotter before
    /// 0.13 cannot read it.
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_PACK))]
    pack: u64,
    /// A file that lists paths, one on a line, which are fetched first, in this order.
    #[arg(long, value_name = "FILE")]
    prioritize: Option<PathBuf>,
    /// Fetch first what starts read, in their order: FILE as `starling profile export` wrote it, or an image that has a
    /// profile in its registry. Comes after what --prioritize lists.
    #[arg(long, value_name = "FILE|IMAGE")]
    profile: Option<String>,
    /// Also convert layers that are eStargz layers already.
    #[arg(long)]
    force: bool,
    /// How many threads compress; as many as there are processors if not given. The result does not depend on it.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Talk to this registry in clear text; may be given several times.
    #[arg(long, value_name = "HOST")]
    insecure: Vec<String>,
    /// Treat SRC as a layer's file (tar, gzip or zstd) and write an eStargz layer to the file DST.
    #[arg(long, conflicts_with_all = ["platform", "insecure"])]
    layer: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: Args) -> Result<()> {
    let start = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let threads =
        args.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let level = Level::new(args.level).unwrap_or_default();
    let workshop = Workshop {
        pool: Pool::start(threads, level).context("cannot start threads")?,
        options: Options {
            chunk_size: args.chunk_size,
            pack_size: args.pack,
            level,
            prioritized: prioritized(&args)?,
        },
        progress: Progress::new(args.quiet),
        interrupted: stop_on_signal(&runtime),
    };
    if args.layer {
        return convert_file(&args, &workshop);
    }
    let mut config = RegistryConfig::default();
    for host in &args.insecure {
        config = config.with_insecure_host(host);
    }
    let client = RegistryClient::new(config)?;
    let origin = Origin::open(&args.source, &client, runtime.handle().clone())?;
    let target = Target::open(&args.target, &client, runtime.handle().clone())?;
    let report = convert_image(&args, &origin, &target, &workshop, threads, start)?;
    if args.json { output::print_json(&report) } else { output::print(&report.lines().join("\n")) }
}

fn convert_image(
    args: &Args,
    origin: &Origin,
    target: &Target,
    workshop: &Workshop,
    threads: usize,
    start: Instant,
) -> Result<Report> {
    let root = tree::read(origin, &args.platform).with_context(|| format!("cannot read {}", args.source))?;
    // A layer of several platforms is converted once.
    let mut layers = BTreeMap::new();
    for layer in root.images().iter().flat_map(|image| &image.manifest.layers) {
        if task(layer, args.force) == Task::Convert {
            layers.insert(layer.digest, layer);
        }
    }
    let outcomes = convert_layers(layers.into_values().collect(), origin, target, workshop, threads)?;
    let mut writer = Writer { origin, target, outcomes: &outcomes, force: args.force, reports: Vec::new() };
    let digest = writer.put_image(&root).with_context(|| format!("cannot write {}", args.target))?;
    let images = std::mem::take(&mut writer.reports);
    Ok(Report { digest, images, missed: missed(&outcomes), seconds: start.elapsed().as_secs_f64() })
}

/// Converts layers, several at a time, the largest first: a large one started last would be waited for alone.
fn convert_layers(
    mut layers: Vec<&Descriptor>,
    origin: &Origin,
    target: &Target,
    workshop: &Workshop,
    threads: usize,
) -> Result<HashMap<Digest, Outcome>> {
    layers.sort_by_key(|layer| layer.size);
    let drivers = threads.min(layers.len());
    let (queue, outcomes) = (Mutex::new(layers), Mutex::new(HashMap::new()));
    let drive = || -> Result<()> {
        loop {
            let next = queue.lock().pop();
            let Some(layer) = next else { return Ok(()) };
            match convert_layer(layer, origin, target, workshop) {
                Ok(outcome) => outcomes.lock().insert(layer.digest, outcome),
                Err(error) => {
                    queue.lock().clear();
                    return Err(error.context(format!("cannot convert the layer {}", layer.digest)));
                }
            };
        }
    };
    std::thread::scope(|scope| {
        let drivers: Vec<_> = (0..drivers).map(|_| scope.spawn(drive)).collect();
        // A thread that panicked has said so itself.
        drivers
            .into_iter()
            .try_for_each(|driver| driver.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
    })?;
    Ok(outcomes.into_inner())
}

fn convert_layer(
    layer: &Descriptor,
    origin: &Origin,
    target: &Target,
    workshop: &Workshop,
) -> Result<Outcome> {
    let mut file = target.new_blob()?;
    let outcome = workshop.convert(origin.read(layer)?, Some(layer.digest), file.as_file_mut())?;
    let name = short(&layer.digest);
    match &outcome {
        Outcome::Converted(converted) => {
            target.keep(file, &converted.digest)?;
            let (before, after) = (human(layer.size), human(converted.size));
            workshop
                .progress
                .line(&format!("{name} converted, {before} -> {after}, {} entries", converted.entries));
        }
        Outcome::Plain(reason) => workshop.progress.line(&format!("{name} stays a plain layer: {reason}")),
    }
    Ok(outcome)
}

/// Converts one layer from file to file.
fn convert_file(args: &Args, workshop: &Workshop) -> Result<()> {
    let source = std::fs::File::open(&args.source).with_context(|| format!("cannot open {}", args.source))?;
    let directory = Path::new(&args.target).parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))
        .with_context(|| format!("cannot write next to {}", args.target))?;
    match workshop.convert(source, None, file.as_file_mut())? {
        Outcome::Plain(reason) => anyhow::bail!("{} cannot be an eStargz layer: {reason}", args.source),
        Outcome::Converted(converted) => {
            file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.persist(&args.target).with_context(|| format!("cannot write {}", args.target))?;
            if args.json {
                output::print_json(&converted)
            } else {
                output::print(&converted.lines().join("\n"))
            }
        }
    }
}

/// Prioritized files that no layer has.
fn missed(outcomes: &HashMap<Digest, Outcome>) -> Vec<String> {
    let lists = outcomes.values().filter_map(|outcome| match outcome {
        Outcome::Converted(converted) => Some(converted.missed.iter().cloned().collect::<BTreeSet<_>>()),
        Outcome::Plain(_) => None,
    });
    lists.reduce(|all, next| &all & &next).unwrap_or_default().into_iter().collect()
}

/// The files that are fetched first.
fn prioritized(args: &Args) -> Result<Vec<String>> {
    let mut files = args.prioritize.as_deref().map(read_list).transpose()?.unwrap_or_default();
    if let Some(profile) = &args.profile {
        let document = crate::profile::find(profile, args.platform.first().cloned(), &args.insecure)?;
        files.extend(document.files().into_iter().map(str::to_owned));
    }
    Ok(files)
}

fn read_list(path: &Path) -> Result<Vec<String>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let lines = BufReader::new(file).lines().collect::<Result<Vec<_>, _>>();
    let lines = lines.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(lines.into_iter().filter(|line| !line.trim().is_empty()).collect())
}

/// A flag that Ctrl-C or SIGTERM sets, so that temporary files are removed on the way out. The second time ends
/// the program at once: a network operation may take long to notice.
fn stop_on_signal(runtime: &Runtime) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    runtime.spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        for again in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            set.store(true, Ordering::Relaxed);
            if again {
                end_at_once();
            }
        }
    });
    flag
}

#[expect(clippy::exit, reason = "the user asked twice")]
fn end_at_once() {
    std::process::exit(130)
}

/// A platform on the command line.
pub(crate) fn parse_platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text).ok_or_else(|| format!("{text:?} is not of the form os/arch[/variant]"))
}

fn parse_chunk_size(text: &str) -> Result<NonZeroU64, String> {
    let size = text.parse().ok().and_then(NonZeroU64::new).filter(|size| CHUNK_SIZES.contains(&size.get()));
    size.ok_or_else(|| {
        format!("{text:?} is not a number of bytes from {} to {}", CHUNK_SIZES.start(), CHUNK_SIZES.end())
    })
}
