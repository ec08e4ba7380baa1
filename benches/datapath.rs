//! `cargo xtask bench datapath`: what reading costs once everything is there, through overlayfs on top of the
//! layers as a container sees them.

mod operation;
mod options;
mod record;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use testkit::requires;

pub use self::options::Options;
use self::{
    operation::Operation,
    record::{Key, Record, Sample, State},
};
use crate::{
    contender::Contender,
    image::{self, Prepared},
    machine::{Machine, Versions},
    network::Network,
    node::{Node, drop_page_cache},
    origin::Origin,
    programs::{Programs, root},
};

/// A contender with the image mounted.
struct Mounted {
    contender: Contender,
    /// Where the image's root is.
    tree: PathBuf,
    /// Kept for its processes and mounts.
    _node: Node,
}

/// Builds, measures, prints and records. Everything happens in the directory `scratch`.
///
/// # Errors
/// Something of the set-up is missing, or an operation failed.
pub fn run(options: &Options, scratch: &Path) -> Result<()> {
    requires::ensure_mounts("the benchmark")?;
    eprintln!("building programs and the image");
    let programs = Programs::build()?;
    let origin = Origin::start(&programs)?;
    let image = image::data_path(&programs)?;
    origin.add(&image)?;
    origin.put_behind(Network::None)?;
    let mut mounted = Vec::new();
    for contender in options.contenders() {
        match contender.unavailable(&programs) {
            Some(why) => eprintln!("{}: skipped: {why}", contender.name()),
            None => {
                eprintln!("pulling, mounting and reading with {}", contender.name());
                let one = mount(scratch, &programs, &origin, &image, contender);
                mounted.push(one.with_context(|| contender.name())?);
            }
        }
    }
    let mut record = Record {
        smoke: options.smoke,
        began: crate::machine::now(),
        seed: options.seed,
        runs: options.runs(),
        machine: Machine::this(),
        versions: Versions::this(),
        samples: Vec::new(),
    };
    measure(&mounted, options, &mut record)?;
    print!("{}", record.tables());
    let path = options.json();
    crate::record::write_json(&record, &path)?;
    eprintln!("\nrecorded in {}", path.strip_prefix(root()).unwrap_or(&path).display());
    Ok(())
}

/// Pulls the image, mounts it as a container would have it, and reads all of it, so that nothing is missing.
fn mount(
    scratch: &Path,
    programs: &Programs,
    origin: &Origin,
    image: &Prepared,
    contender: Contender,
) -> Result<Mounted> {
    let node = Node::start(scratch, programs, contender, None)?;
    let reference = origin.reference(&image.name, contender.form());
    node.pull(&reference)?;
    let tree = node.mount(&reference)?;
    Operation::Tar.run(&tree)?;
    Ok(Mounted { contender, tree, _node: node })
}

/// Every operation on every contender, cold and warm, in rounds of random order.
fn measure(mounted: &[Mounted], options: &Options, record: &mut Record) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    for run in 0..options.runs() {
        let mut round: Vec<(&Mounted, Operation, State)> = Vec::new();
        for one in mounted {
            for operation in options.operations() {
                round.extend([State::Cold, State::Warm].map(|state| (one, operation, state)));
            }
        }
        round.shuffle(&mut rng);
        for (one, operation, state) in round {
            match state {
                State::Cold => drop_page_cache()?,
                State::Warm => drop(operation.run(&one.tree)?),
            }
            let place = || format!("{} with {}", operation.title(), one.contender.name());
            let seconds = operation.run(&one.tree).with_context(place)?.as_secs_f64();
            let key = Key { operation, state, contender: one.contender };
            eprintln!("{}/{} {}, {}: {seconds:.3} s", run + 1, options.runs(), place(), state.name());
            record.samples.push(Sample { key, seconds });
        }
    }
    Ok(())
}
