//! `cargo xtask bench memory`: what `starlingd` holds in memory for many layers with many files, at each step of their
//! life. The promise is about the peak of all steps.

mod options;
mod record;

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use testkit::{requires, sample_image::many_files};
use walkdir::WalkDir;

pub use self::options::Options;
use self::record::{Record, Step, Stepped};
use crate::{
    contender::{Contender, Form},
    image,
    machine::{Machine, Versions},
    network::Network,
    node::Node,
    origin::Origin,
    process::{MemoryWatch, anonymous_memory},
    programs::{Programs, root},
};

/// Of so many small files one is read.
const READ_ONE_OF: usize = 10;
/// Programs that read at one time.
const READERS: usize = 8;
/// How long the background may take for everything.
const FETCH_LIMIT: Duration = Duration::from_secs(30 * 60);
/// How long nothing happens before the memory at rest is looked at.
const REST: Duration = Duration::from_secs(20);

/// How large the image is.
struct Shape {
    layers: usize,
    /// Small files of each layer.
    files: usize,
}

/// Builds, measures, prints and records. Everything happens in the directory `scratch`.
///
/// # Errors
/// Something of the set-up is missing, an operation failed, or the promise is not kept in a run that is no smoke run.
pub fn run(options: &Options, scratch: &Path) -> Result<()> {
    requires::ensure_mounts("the benchmark")?;
    eprintln!("building programs and the image");
    let programs = Programs::build()?;
    let origin = Origin::start(&programs)?;
    let image = image::many_files(&programs, options.layers(), options.files())?;
    origin.add(&image)?;
    origin.put_behind(Network::None)?;
    let mut record = Record {
        smoke: options.smoke,
        began: crate::machine::now(),
        layers: options.layers(),
        files: options.layers() * options.files(),
        machine: Machine::this(),
        versions: Versions::this(),
        steps: Vec::new(),
    };
    let node = Node::start(scratch, &programs, Contender::Starling, None)?;
    let shape = Shape { layers: options.layers(), files: options.files() };
    measure(&node, &origin.reference(&image.name, Form::Estargz), shape, &mut record)?;
    drop(node);
    print!("{}", record.table());
    let path = options.json();
    crate::record::write_json(&record, &path)?;
    eprintln!("\nrecorded in {}", path.strip_prefix(root()).unwrap_or(&path).display());
    if !options.smoke && !record.is_kept() {
        bail!("the promise is not kept: the daemon held {} bytes of its own", record.peak());
    }
    Ok(())
}

fn measure(node: &Node, reference: &str, image: Shape, record: &mut Record) -> Result<()> {
    let mut tree = PathBuf::new();
    let mut step = |step, work: &mut dyn FnMut() -> Result<()>| {
        let one = watch(node, step, work).with_context(|| step.title())?;
        eprintln!("{}", one.line());
        record.steps.push(one);
        Ok::<_, anyhow::Error>(())
    };
    step(Step::Started, &mut || Ok(()))?;
    step(Step::Attached, &mut || {
        node.pull(reference)?;
        tree = node.mount(reference)?;
        Ok(())
    })?;
    step(Step::Read, &mut || read(&some_of(&tree, &image)))?;
    step(Step::Walked, &mut || walk(&tree))?;
    step(Step::Fetched, &mut || wait_until_fetched(node))?;
    step(Step::Rested, &mut || {
        thread::sleep(REST);
        Ok(())
    })
}

/// Does the work of a step and looks at the daemon's memory meanwhile and afterwards.
fn watch(node: &Node, step: Step, work: &mut dyn FnMut() -> Result<()>) -> Result<Stepped> {
    let pid = node.daemon_pid().context("a daemon")?;
    let watch = MemoryWatch::start(&[pid])?;
    let began = Instant::now();
    work()?;
    let seconds = began.elapsed().as_secs_f64();
    let state = node.daemon_state()?.context("a daemon that tells of itself")?;
    let after = anonymous_memory(pid);
    Ok(Stepped {
        step,
        seconds,
        peak: watch.peak(pid).max(after),
        after,
        in_flight: state.in_flight,
        threads: fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count),
    })
}

/// The names of every large file and of some of the small ones, those of all layers in turn.
fn some_of(tree: &Path, image: &Shape) -> Vec<PathBuf> {
    let small = (0..image.files)
        .step_by(READ_ONE_OF)
        .flat_map(|file| (0..image.layers).map(move |layer| many_files::small(layer, file)));
    let large = (0..image.layers).map(many_files::large);
    small.chain(large).map(|name| tree.join(name)).collect()
}

/// Reads files whole, by several readers at once.
fn read(wanted: &[PathBuf]) -> Result<()> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut buffer = vec![0; 1 << 20];
                    while let Some(path) = wanted.get(next.fetch_add(1, Relaxed)) {
                        let mut file = File::open(path).with_context(|| path.display().to_string())?;
                        while file.read(&mut buffer).with_context(|| path.display().to_string())? > 0 {}
                    }
                    Ok(())
                })
            })
            .collect();
        readers
            .into_iter()
            .try_for_each(|reader| reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?)
    })
}

/// Lists every directory and asks for the attributes of all that is in it.
fn walk(tree: &Path) -> Result<()> {
    for entry in WalkDir::new(tree) {
        entry?.metadata()?;
    }
    Ok(())
}

fn wait_until_fetched(node: &Node) -> Result<()> {
    let began = Instant::now();
    while node.daemon_state()?.is_none_or(|state| state.partial_layers > 0 || state.complete_layers == 0) {
        if began.elapsed() > FETCH_LIMIT {
            bail!("the background has not fetched everything within {FETCH_LIMIT:?}");
        }
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
