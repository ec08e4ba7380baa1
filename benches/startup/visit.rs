//! One visit to a fresh machine: scenarios are played one after the other, meters are read at the end of each.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use super::{
    meters::{Meters, watch_memory},
    plan::Job,
    scenario::Scenario,
};
use crate::{
    contender::{Contender, Form},
    figure::{Figure, Figures},
    image::{Family, Image, READY},
    network::Network,
    node::{Node, drop_page_cache},
    origin::Origin,
    process::MemoryWatch,
    programs::Programs,
    statistics::estimate,
};

/// What reads all files of an image, and says so like a program of its own.
const READ_ALL: &[&str] =
    &["/bin/bash", "-o", "pipefail", "-c", "tar -C / --one-file-system -cf - . | wc -c && echo ready"];

/// How long nothing must be fetched until fetching counts as ended: stargz-snapshotter's background rests for
/// five seconds after a read.
const QUIET: Duration = Duration::from_secs(7);

/// How long that is waited for: 2 GiB at 25 Mbit/s are 12 minutes.
const QUIET_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How far other pulls are ahead of the one that is measured among them.
const HEAD_START: Duration = Duration::from_secs(1);

/// What all visits share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench<'a> {
    pub(crate) scratch: &'a Path,
    pub(crate) programs: &'a Programs,
    pub(crate) origin: &'a Origin,
    pub(crate) images: &'a BTreeMap<Image, Family>,
    /// Profiles that were recorded before, by image.
    pub(crate) profiles: &'a BTreeMap<Image, PathBuf>,
}

/// A fresh machine with an image to pull.
#[derive(Debug)]
struct Visit<'a> {
    origin: &'a Origin,
    node: Node,
    form: Form,
    image: &'a str,
    variants: Vec<&'a str>,
    command: &'static [&'static str],
    memory: MemoryWatch,
}

impl Bench<'_> {
    /// Plays a job's scenarios.
    pub(crate) fn take(&self, job: &Job) -> Result<Vec<(Scenario, Figures)>> {
        let family = self.images.get(&job.image).context("an image that was prepared")?;
        let visit = self.arrive(job.contender, family, job)?;
        let mut stages = Vec::new();
        for &scenario in &job.scenarios {
            stages.push((scenario, visit.play(scenario).with_context(|| scenario.title())?));
        }
        Ok(stages)
    }

    /// Starts an image once with nothing in the way, and keeps what Starling recorded of it.
    pub(crate) fn record_profile(&self, image: Image) -> Result<PathBuf> {
        let family = self.images.get(&image).context("an image that was prepared")?;
        let reference = self.origin.reference(&family.image.name, Form::Estargz);
        self.origin.put_behind(Network::None)?;
        let node = Node::start(self.scratch, self.programs, Contender::Starling, None)?;
        node.pull(&reference)?;
        let mut container = node.run(&reference, "recorded", image.command())?;
        container.wait_for(READY)?;
        container.end()?;
        let kept = self.scratch.join(format!("profiles-{}", image.name()));
        node.end_and_keep_profiles(&kept)?;
        Ok(kept)
    }

    fn arrive<'b>(&'b self, contender: Contender, family: &'b Family, job: &Job) -> Result<Visit<'b>> {
        let profiles = match contender {
            Contender::StarlingProfile => self.profiles.get(&job.image).map(PathBuf::as_path),
            _ => None,
        };
        let node = Node::start(self.scratch, self.programs, contender, profiles)?;
        self.origin.put_behind(job.network)?;
        drop_page_cache()?;
        self.origin.forget_requests()?;
        let memory = watch_memory(&node)?;
        Ok(Visit {
            origin: self.origin,
            node,
            form: contender.form(),
            image: &family.image.name,
            variants: family.variants.iter().map(|variant| variant.name.as_str()).collect(),
            command: job.image.command(),
            memory,
        })
    }
}

impl Visit<'_> {
    fn play(&self, scenario: Scenario) -> Result<Figures> {
        let mut figures = Figures::new();
        match scenario {
            Scenario::Start => self.pull_and_run(&mut figures)?,
            Scenario::Second => self.run_again("second", &mut figures)?,
            Scenario::Dropped => {
                self.wait_until_all_is_fetched()?;
                drop_page_cache()?;
                self.run_again("dropped", &mut figures)?;
                self.node.add_disk(&mut figures);
            }
            Scenario::Whole => {
                let meters = self.meters()?;
                self.pull(&meters, &mut figures)?;
                self.run("whole", READ_ALL, &meters, &mut figures)?;
                figures.remove(&Figure::Ready).map(|ready| figures.insert(Figure::WholeRead, ready));
                self.node.add_disk(&mut figures);
            }
            Scenario::TenContainers => {
                let meters = self.meters()?;
                self.pull(&meters, &mut figures)?;
                let ids: Vec<String> = (0..10).map(|number| format!("at-once-{number}")).collect();
                let each = ids.iter().map(|id| move || self.ready_at(self.image, id));
                self.all_at_once(each, &meters, &mut figures)?;
            }
            Scenario::TenImages => {
                let meters = self.meters()?;
                let each = self.variants.iter().take(10).map(|&image| {
                    move || {
                        self.node.pull(&self.origin.reference(image, self.form))?;
                        self.ready_at(image, image)
                    }
                });
                self.all_at_once(each, &meters, &mut figures)?;
            }
            Scenario::Busy => self.pull_and_run_among_others(&mut figures)?,
        }
        Ok(figures)
    }

    fn pull_and_run(&self, figures: &mut Figures) -> Result<()> {
        let meters = self.meters()?;
        self.pull(&meters, figures)?;
        self.run("first", self.command, &meters, figures)
    }

    fn run_again(&self, id: &str, figures: &mut Figures) -> Result<()> {
        let meters = self.meters()?;
        self.run(id, self.command, &meters, figures)
    }

    fn pull(&self, meters: &Meters<'_>, figures: &mut Figures) -> Result<()> {
        self.node.pull(&self.origin.reference(self.image, self.form))?;
        figures.insert(Figure::Pulled, meters.seconds_until(Instant::now()));
        Ok(())
    }

    fn meters(&self) -> Result<Meters<'_>> {
        Meters::start(&self.node, self.origin, &self.memory)
    }

    /// Runs `command` until it is ready, and reads the meters at that moment.
    fn run(&self, id: &str, command: &[&str], meters: &Meters<'_>, figures: &mut Figures) -> Result<()> {
        let mut container = self.node.run(&self.origin.reference(self.image, self.form), id, command)?;
        let ready = container.wait_for(READY)?;
        meters.read(&self.node, self.origin, figures)?;
        figures.insert(Figure::Ready, meters.seconds_until(ready));
        if let Some(started) = container.started() {
            figures.insert(Figure::Started, meters.seconds_until(started));
        }
        container.end()
    }

    /// Runs an image's own command, and gives the moment when it was ready.
    fn ready_at(&self, image: &str, id: &str) -> Result<Instant> {
        let mut container = self.node.run(&self.origin.reference(image, self.form), id, self.command)?;
        let ready = container.wait_for(READY)?;
        container.end()?;
        Ok(ready)
    }

    /// Does all of `each` at once, on a thread each, and notes when half of them and all of them were ready.
    fn all_at_once<F>(
        &self,
        each: impl Iterator<Item = F>,
        meters: &Meters<'_>,
        figures: &mut Figures,
    ) -> Result<()>
    where
        F: FnOnce() -> Result<Instant> + Send,
    {
        let ready = thread::scope(|scope| {
            let threads: Vec<_> = each.map(|one| scope.spawn(one)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a thread of the benchmark failed"))?)
                .collect::<Result<Vec<Instant>>>()
        })?;
        meters.read(&self.node, self.origin, figures)?;
        let times: Vec<f64> = ready.iter().map(|at| meters.seconds_until(*at)).collect();
        let last = times.iter().copied().fold(0.0, f64::max);
        figures.insert(Figure::Ready, last);
        figures.extend(estimate(&times, 0).map(|estimate| (Figure::ReadyMedian, estimate.median)));
        Ok(())
    }

    /// The measured pull among three others that began before it and are not waited for.
    fn pull_and_run_among_others(&self, figures: &mut Figures) -> Result<()> {
        thread::scope(|scope| {
            let others: Vec<_> = self
                .variants
                .iter()
                .take(3)
                .map(|image| scope.spawn(move || self.node.pull(&self.origin.reference(image, self.form))))
                .collect();
            thread::sleep(HEAD_START);
            let measured = self.pull_and_run(figures);
            for other in others {
                other.join().map_err(|_| anyhow!("a thread of the benchmark failed"))??;
            }
            measured
        })
    }

    /// Waits until the registry has not been asked for anything for a while.
    fn wait_until_all_is_fetched(&self) -> Result<()> {
        let began = Instant::now();
        let mut last = (self.origin.traffic()?, Instant::now());
        while last.1.elapsed() < QUIET && began.elapsed() < QUIET_LIMIT {
            thread::sleep(Duration::from_millis(200));
            let traffic = self.origin.traffic()?;
            if traffic != last.0 {
                last = (traffic, Instant::now());
            }
        }
        Ok(())
    }
}
