//! In which order samples are taken: contenders interleaved at random, so that what the machine does
//! meanwhile, and what one leaves to the next, strikes all of them alike.

use std::{collections::BTreeMap, fmt};

use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use super::{options::Options, scenario::Scenario};
use crate::{contender::Contender, image::Image, network::Network, record::Key};

/// One visit to a fresh machine; it gives a sample of each of its scenarios.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) contender: Contender,
    pub(crate) image: Image,
    pub(crate) network: Network,
    /// What is done, one after the other; never empty.
    pub(crate) scenarios: Vec<Scenario>,
}

/// Everything that is to be measured.
#[derive(Debug)]
pub(crate) struct Plan {
    jobs: Vec<Job>,
}

impl Plan {
    /// Rounds over all combinations, each round in an order of its own.
    pub(crate) fn new(options: &Options) -> Self {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let mut jobs = Vec::new();
        for _ in 0..options.runs() {
            let mut round = Vec::new();
            for &image in &options.images {
                for &network in &options.networks {
                    for contender in options.contenders() {
                        for scenarios in visits(&options.scenarios) {
                            round.push(Job { contender, image, network, scenarios });
                        }
                    }
                }
            }
            round.shuffle(&mut rng);
            jobs.extend(round);
        }
        Self { jobs }
    }

    pub(crate) fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    pub(crate) fn contenders(&self) -> Vec<Contender> {
        distinct(self.jobs.iter().map(|job| job.contender))
    }

    pub(crate) fn images(&self) -> Vec<Image> {
        distinct(self.jobs.iter().map(|job| job.image))
    }

    /// How many variants of each image are needed.
    pub(crate) fn variants(&self) -> usize {
        self.jobs.iter().flat_map(|job| &job.scenarios).map(|scenario| scenario.variants()).max().unwrap_or(0)
    }

    /// Forgets the jobs of contenders that cannot take part.
    pub(crate) fn leave_out(&mut self, skipped: &BTreeMap<Contender, String>) {
        self.jobs.retain(|job| !skipped.contains_key(&job.contender));
    }
}

/// Scenarios that continue a start share its visit; every other one has a visit of its own.
fn visits(scenarios: &[Scenario]) -> Vec<Vec<Scenario>> {
    let (mut continued, others): (Vec<Scenario>, Vec<Scenario>) =
        distinct(scenarios.iter().copied()).into_iter().partition(|scenario| scenario.continues_a_start());
    if !continued.is_empty() && !continued.contains(&Scenario::Start) {
        continued.insert(0, Scenario::Start);
    }
    let mut visits: Vec<Vec<Scenario>> = others.into_iter().map(|scenario| vec![scenario]).collect();
    if !continued.is_empty() {
        visits.push(continued);
    }
    visits
}

fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort();
    values.dedup();
    values
}

impl Job {
    /// What its samples are filed under.
    pub(crate) fn key(&self, scenario: Scenario) -> Key {
        Key { image: self.image, network: self.network, scenario, contender: self.contender }
    }

    /// The first thing that is done.
    pub(crate) fn scenario(&self) -> Scenario {
        self.scenarios.first().copied().unwrap_or(Scenario::Start)
    }

    /// Contender, image and network.
    pub(crate) fn place(&self) -> String {
        format!("{} {} ({})", self.contender.name(), self.image.name(), self.network.title())
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.scenarios.iter().map(|scenario| scenario.name()).collect();
        write!(f, "{}: {}", self.place(), names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn plan(arguments: &str) -> Plan {
        let line = format!("bench {arguments}");
        Plan::new(&Line::parse_from(line.split_whitespace()).options)
    }

    #[test]
    fn every_combination_is_there_once_a_round() {
        let plan = plan("--contenders starling,overlayfs --networks none,far,edge --runs 4");
        assert_eq!(plan.jobs().len(), 2 * 3 * 4);
        for round in plan.jobs().chunks(6) {
            let mut names: Vec<String> = round.iter().map(ToString::to_string).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), 6);
        }
    }

    #[test]
    fn the_order_is_random_and_the_same_for_the_same_seed() {
        let arguments = "--networks none,near,far,edge --runs 2 --seed";
        let order = |seed: u64| plan(&format!("{arguments} {seed}")).jobs;
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let one = order(1);
        let (first, second) = one.split_at(one.len() / 2);
        assert_ne!(first, second);
    }

    #[test]
    fn a_second_start_comes_after_a_first_one() {
        assert_eq!(visits(&[Scenario::Second]), [[Scenario::Start, Scenario::Second]]);
    }

    #[test]
    fn skipped_contenders_are_left_out() {
        let mut plan = plan("--contenders starling,erofs --runs 1");
        plan.leave_out(&BTreeMap::from([(Contender::Erofs, "no erofs".to_owned())]));
        assert_eq!(plan.contenders(), [Contender::Starling]);
    }
}
