//! Runs of a store, and power cuts in them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    after::{Log, Look, Node, Told, check},
    blob::{Blob, node},
    machine::{Change, Left, Machine, Naming, Place},
    memory::{Memory, settled},
    recorder::Entry,
};

#[derive(Debug, Clone)]
enum Step {
    Read {
        file: usize,
        offset: u64,
        len: usize,
    },
    Flush,
    /// So many bytes, or all that there are.
    GiveBack(u64),
    Restart,
    Remove,
}

/// Chunks that share pages, a file of one byte, an empty one, and one of many chunks.
fn blob() -> Blob {
    Blob::new(&[("f0", 1), ("f1", 20_000), ("f2", 4096), ("f3", 9_000), ("f4", 0), ("f5", 6_000)], 5000)
}

/// What a store does to its disk while it takes `steps`.
async fn run(blob: &Blob, steps: &[Step]) -> Log {
    let mut host = Node::start(&Machine::new());
    let source = Memory::new(blob);
    for step in steps {
        let Step::Remove = step else {
            let layer = host.store.open_layer(blob.key, source.clone()).await.unwrap();
            host.disk.mark(Told::There(host.dir.recorded(&layer)));
            match step {
                Step::Read { file, offset, len } => {
                    let name = format!("f{file}");
                    layer.read(node(&layer, &name), *offset, *len).await.unwrap();
                    settled(&host.store).await;
                }
                Step::Flush => {
                    layer.flush();
                    host.disk.mark(Told::There(host.dir.recorded(&layer)));
                }
                Step::GiveBack(bytes) => {
                    // Which chunks go is the store's choice.
                    host.disk.mark(Told::There(BTreeSet::new()));
                    host.store.give_back(&blob.key, *bytes).unwrap();
                    host.disk.mark(Told::There(host.dir.recorded(&layer)));
                }
                _ => {
                    drop(layer);
                    host = host.restart();
                }
            }
            continue;
        };
        host.disk.mark(Told::Nothing);
        host.store.remove(&blob.key).unwrap();
    }
    host.disk.log()
}

/// The machine as it is before each entry of `log`, and at the end.
fn moments<'a>(log: &'a Log, from: &Machine) -> impl Iterator<Item = (Machine, Told)> + use<'a> {
    let (mut machine, mut told) = (from.clone(), Told::Nothing);
    let first = std::iter::once((machine.clone(), told.clone()));
    first.chain(log.iter().map(move |entry| {
        match entry {
            Entry::Change(change) => machine.apply(change),
            Entry::Mark(mark) => told = mark.clone(),
        }
        (machine.clone(), told.clone())
    }))
}

/// Cuts the power at every moment of a run, and once more at a moment of each start that follows. Says how often.
async fn cut_everywhere(blob: &Blob, steps: &[Step], lots: usize, seed: u64) -> usize {
    let log = run(blob, steps).await;
    let mut chance = StdRng::seed_from_u64(seed);
    let mut cuts = 0;
    for (machine, told) in moments(&log, &Machine::new()) {
        for left in Left::ALL.into_iter().chain([Left::Some].repeat(lots)) {
            let after = machine.cut(left, &mut chance);
            let look = if left == Left::Some { Look::Using } else { Look::OnDisk };
            let start = check(&after, blob, &told, look).await;
            cuts += 1;
            let again: Vec<_> = moments(&start, &after).collect();
            let (machine, _) = &again[chance.random_range(0..again.len())];
            let told = if look == Look::OnDisk { told.clone() } else { Told::Nothing };
            check(&machine.cut(Left::Some, &mut chance), blob, &told, Look::OnDisk).await;
            cuts += 1;
        }
    }
    cuts
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(future)
}

#[test]
fn a_power_cut_at_any_moment_of_a_layers_life_leaves_nothing_wrong() {
    use Step::{Flush, GiveBack, Read, Remove, Restart};
    let all = |file| Read { file, offset: 0, len: 20_000 };
    let part = |file, offset| Read { file, offset, len: 10 };
    let steps = [
        part(1, 0),
        Flush,
        part(1, 7_000),
        all(3),
        GiveBack(1),
        part(1, 0),
        Flush,
        GiveBack(u64::MAX),
        all(1),
        Restart,
        part(1, 19_000),
        Remove,
        all(2),
        Flush,
        part(5, 0),
    ];
    let cuts = block_on(cut_everywhere(&blob(), &steps, 2, 1));
    eprintln!("{cuts} power cuts");
    assert!(cuts > 500);
}

/// Deleting a layer may be half done after a power cut though its name is back.
#[test]
fn a_layer_that_lost_a_file_is_made_whole_or_refused_wherever_the_next_power_cut_falls() {
    block_on(async {
        let blob = blob();
        let log = run(&blob, &[Step::Read { file: 1, offset: 0, len: 20_000 }, Step::Flush]).await;
        let Some((whole, _)) = moments(&log, &Machine::new()).last() else { return };
        let mut chance = StdRng::seed_from_u64(2);
        for name in ["toc", "index", "content", "chunks"] {
            let mut machine = whole.cut(Left::Everything, &mut chance);
            let Some(Place::Dir(dir)) = machine.find(blob.key.to_string().as_ref()) else {
                panic!("no layer")
            };
            machine.apply(&Change::Name(dir, Naming::Take(name.to_owned())));
            machine.apply(&Change::SyncDir(dir));
            let start = check(&machine, &blob, &Told::Nothing, Look::Using).await;
            for (machine, _) in moments(&start, &machine) {
                for left in Left::ALL.into_iter().chain([Left::Some; 20]) {
                    check(&machine.cut(left, &mut chance), &blob, &Told::Nothing, Look::OnDisk).await;
                }
            }
        }
    });
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..6, 0u64..20_000, 1usize..20_000).prop_map(|(file, offset, len)| Step::Read { file, offset, len }),
        3 => Just(Step::Flush),
        2 => (1u64..20_000).prop_map(Step::GiveBack),
        1 => Just(Step::Restart),
        1 => Just(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn power_cuts_in_random_runs_leave_nothing_wrong(
        steps in prop::collection::vec(step(), 1..10),
        seed in any::<u64>(),
    ) {
        block_on(async {
            let blob = blob();
            let log = run(&blob, &steps).await;
            let mut chance = StdRng::seed_from_u64(seed);
            let moments: Vec<_> = moments(&log, &Machine::new()).collect();
            for _ in 0..30 {
                let at = chance.random_range(0..moments.len());
                let (machine, told) = &moments[at];
                check(&machine.cut(Left::Some, &mut chance), &blob, told, Look::Using).await;
            }
        });
    }
}

/// How many random runs: as many as the variable says, or a few.
fn cases() -> u32 {
    std::env::var("STARLING_CRASH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(8)
}
