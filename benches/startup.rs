//! `cargo xtask bench startup`: how long until a program in a container is ready, from the request to pull.

mod meters;
mod options;
mod plan;
pub(crate) mod scenario;
mod visit;

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use testkit::requires;

pub use self::options::Options;
use self::{
    plan::{Job, Plan},
    scenario::Scenario,
    visit::Bench,
};
use crate::{
    contender::Contender,
    figure::Figure,
    image::Image,
    machine::{self, Machine, Versions},
    origin::Origin,
    picture,
    programs::Programs,
    record::{Record, Sample, nydus, read_json, write_json},
    table,
};

/// Builds, measures, prints and records. Everything happens in the directory `scratch`.
///
/// # Errors
/// Something of the set-up is missing, or a contender failed: what could be measured is recorded all the same.
pub fn run(options: &Options, scratch: &Path) -> Result<()> {
    requires::ensure_mounts("the benchmark")?;
    eprintln!("building programs and images");
    let programs = Programs::build()?;
    let mut plan = Plan::new(options);
    let skipped: BTreeMap<Contender, String> = plan
        .contenders()
        .into_iter()
        .filter_map(|contender| Some((contender, contender.unavailable(&programs)?)))
        .collect();
    for (contender, why) in &skipped {
        eprintln!("{}: skipped: {why}", contender.name());
    }
    plan.leave_out(&skipped);
    let origin = Origin::start(&programs)?;
    let mut images = BTreeMap::new();
    for image in plan.images() {
        let family = image.prepare(&programs, plan.variants())?;
        for one in family.variants.iter().chain([&family.image]) {
            origin.add(one)?;
        }
        images.insert(image, family);
    }
    let mut record = Record {
        smoke: options.smoke,
        began: machine::now(),
        seed: options.seed,
        runs: options.runs(),
        machine: Machine::this(),
        versions: Versions::this(),
        skipped,
        recorded_elsewhere: nydus(),
        samples: Vec::new(),
    };
    let without = BTreeMap::new();
    let bench = Bench { scratch, programs: &programs, origin: &origin, images: &images, profiles: &without };
    let profiles = record_profiles(&bench, &plan)?;
    let bench = Bench { profiles: &profiles, ..bench };
    measure(&bench, &plan, &mut record);
    finish(&record, options)
}

/// A profile of each image that is started with one.
fn record_profiles(bench: &Bench<'_>, plan: &Plan) -> Result<BTreeMap<Image, PathBuf>> {
    if !plan.contenders().contains(&Contender::StarlingProfile) {
        return Ok(BTreeMap::new());
    }
    plan.images()
        .into_iter()
        .map(|image| {
            eprintln!("recording a profile of {}", image.name());
            let kept = bench.record_profile(image);
            Ok((image, kept.with_context(|| format!("record a profile of {}", image.name()))?))
        })
        .collect()
}

/// Prints the tables of a record, and draws its picture in the file `svg`.
///
/// # Errors
/// The file cannot be read or is no record, or the picture cannot be written.
pub fn show(record: &Path, svg: Option<&Path>) -> Result<()> {
    let record = read_json(record)?;
    print!("{}", table::of(&record));
    if let Some(svg) = svg {
        draw(&record, svg)?;
    }
    Ok(())
}

/// Takes every sample of the plan, in its order.
fn measure(bench: &Bench<'_>, plan: &Plan, record: &mut Record) {
    let bar = progress(plan.jobs().len());
    for (position, job) in plan.jobs().iter().enumerate() {
        bar.set_message(job.to_string());
        match bench.take(job) {
            Ok(stages) => {
                for (scenario, figures) in stages {
                    let key = job.key(scenario);
                    let sample = Sample { key, position, figures, failure: None };
                    bar.suspend(|| eprintln!("{}", line(job, &sample)));
                    record.samples.push(sample);
                }
            }
            Err(error) => {
                bar.suspend(|| eprintln!("{job}: failed: {error:#}"));
                let failure = Some(format!("{error:#}"));
                let key = job.key(job.scenario());
                record.samples.push(Sample { key, position, figures: BTreeMap::new(), failure });
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
}

/// A sample as one line.
fn line(job: &Job, sample: &Sample) -> String {
    let shown = [
        Figure::Pulled,
        Figure::Started,
        Figure::Ready,
        Figure::WholeRead,
        Figure::OriginBytes,
        Figure::OriginRequests,
    ];
    let cells: Vec<String> = shown
        .iter()
        .filter_map(|figure| {
            Some(format!("{} {}", figure.title(), figure.show(*sample.figures.get(figure)?)))
        })
        .collect();
    format!("{} {}: {}", job.place(), sample.key.scenario.name(), cells.join(", "))
}

fn progress(jobs: usize) -> ProgressBar {
    let bar = ProgressBar::new(jobs as u64);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    } else if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_secs(1));
    }
    bar
}

fn finish(record: &Record, options: &Options) -> Result<()> {
    print!("{}", table::of(record));
    let path = options.json();
    write_json(record, &path)?;
    eprintln!("\nrecorded in {}", shown(&path));
    draw(record, &path.with_extension("svg"))?;
    let failures = record.samples.iter().filter(|sample| sample.failure.is_some()).count();
    if failures > 0 {
        bail!("{failures} samples failed");
    }
    Ok(())
}

/// Draws how long a cold pull takes until the program is ready, if that was measured.
fn draw(record: &Record, path: &Path) -> Result<()> {
    let Some(svg) = picture::of(record, Scenario::Start, Figure::Ready) else { return Ok(()) };
    std::fs::write(path, svg).with_context(|| format!("write {}", path.display()))?;
    eprintln!("drawn in {}", shown(path));
    Ok(())
}

fn shown(path: &Path) -> String {
    path.strip_prefix(crate::programs::root()).unwrap_or(path).display().to_string()
}
