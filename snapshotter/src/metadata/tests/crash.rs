//! Power cuts at every write of the database: what was confirmed is there, what was under way is there whole or not at all.
//!
//! The database runs on a file in memory that notes its writes. Of those since the last sync each sector of 512 bytes has
//! seen some, from the first on, and so has the file's length.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use proptest::{collection::vec, prelude::*};
use rand::{Rng, SeedableRng, rngs::StdRng};
use redb::StorageBackend;

use super::{Call, Shown, apply, change, listed};
use crate::{
    lazy::{Labels, Usage},
    metadata::{Kind, Metadata},
};

const SECTOR: u64 = 512;

/// The file, and what was done to it.
#[derive(Debug, Clone, Default)]
struct File(Arc<Mutex<Inner>>);

#[derive(Debug, Clone, Default)]
struct Inner {
    bytes: Vec<u8>,
    log: Vec<Event>,
}

#[derive(Debug, Clone)]
enum Event {
    SetLen(u64),
    Write(u64, Vec<u8>),
    Sync,
    /// A call was answered: this is what is listed since.
    Confirmed(Vec<Shown>),
}

/// How much of what was not synced is left.
#[derive(Debug, Clone, Copy)]
enum Left {
    Nothing,
    Everything,
    Some,
}

// === impl File ===

impl File {
    fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Inner { bytes, log: Vec::new() })))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn open(&self) -> Metadata {
        let file = self.clone();
        Metadata::open_with(Path::new("in memory"), 0, move |builder| builder.create_with_backend(file))
            .unwrap()
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|file| file.bytes.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|file| {
            let part = file.bytes.get(offset as usize..offset as usize + out.len());
            out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|file| file.apply(Event::SetLen(len)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|file| file.log.push(Event::Sync));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|file| file.apply(Event::Write(offset, data.to_vec())));
        Ok(())
    }
}

impl Inner {
    fn apply(&mut self, event: Event) {
        event.apply(&mut self.bytes);
        self.log.push(event);
    }
}

impl Event {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => bytes.resize(*len as usize, 0),
            Self::Write(at, data) => bytes[*at as usize..*at as usize + data.len()].copy_from_slice(data),
            Self::Sync | Self::Confirmed(_) => {}
        }
    }
}

/// What is left of a file with `synced` bytes and the events `since`.
fn cut(synced: &[u8], since: &[Event], left: Left, chance: &mut StdRng) -> Vec<u8> {
    let mut bytes = synced.to_vec();
    let mut seen = HashMap::new();
    let pick = |chance: &mut StdRng| match left {
        Left::Nothing => 0,
        Left::Everything => since.len(),
        Left::Some => chance.random_range(0..=since.len()),
    };
    let of_len = pick(chance);
    let mut len = synced.len();
    for (at, event) in since.iter().enumerate() {
        match event {
            Event::SetLen(new) => {
                bytes.resize(bytes.len().max(*new as usize), 0);
                len = if at < of_len { *new as usize } else { len };
            }
            Event::Write(start, data) => {
                for (offset, byte) in (*start..).zip(data) {
                    let upto = *seen.entry(offset / SECTOR).or_insert_with(|| pick(chance));
                    if at < upto {
                        bytes[offset as usize] = *byte;
                    }
                }
            }
            Event::Sync | Event::Confirmed(_) => {}
        }
    }
    bytes.resize(len, 0);
    bytes
}

/// What `calls` do to a database that was just made, each confirmed.
fn run(calls: &[Call]) -> (Vec<u8>, Vec<Event>) {
    let new = File::default();
    drop(new.open());
    let file = File::of(new.with(|file| file.bytes.clone()));
    let made = file.with(|file| file.bytes.clone());
    let mut metadata = Some(file.open());
    for call in calls {
        if let Call::Restart = call {
            drop(metadata.take());
        } else if let Some(metadata) = &metadata {
            // One that is refused must change nothing either.
            let _ = metadata.change(|change| apply(change, call));
        }
        let metadata = metadata.get_or_insert_with(|| file.open());
        let shown = listed(metadata);
        file.with(|file| file.log.push(Event::Confirmed(shown)));
    }
    let log = file.with(|file| file.log.clone());
    (made, log)
}

/// Opens what is left after a power cut at `at`, and compares it with what was confirmed before and what comes next.
fn check(made: &[u8], log: &[Event], at: usize, left: Left, chance: &mut StdRng) {
    let (before, after) = log.split_at(at);
    let synced_at = before.iter().rposition(|event| matches!(event, Event::Sync)).map_or(0, |sync| sync + 1);
    let mut synced = made.to_vec();
    before[..synced_at].iter().for_each(|event| event.apply(&mut synced));
    let confirmed = |event: &Event| match event {
        Event::Confirmed(shown) => Some(shown.clone()),
        _ => None,
    };
    let last = before.iter().rev().find_map(confirmed).unwrap_or_default();
    let next = after.iter().find_map(confirmed);
    let found = listed(&File::of(cut(&synced, &before[synced_at..], left, chance)).open());
    assert!(
        found == last || Some(&found) == next.as_ref(),
        "cut at {at} of {}: confirmed were {last:?}, found {found:?}",
        log.len()
    );
}

/// One snapshot from Prepare to Commit, another on it, labels, a removal, with a restart between.
fn life() -> Vec<Call> {
    let (labels, usage) = (Labels::from([("l1".to_owned(), "v1".to_owned())]), Usage::default());
    let create = |key: &str, parent: Option<&str>| Call::Create {
        kind: Kind::Active,
        key: key.into(),
        parent: parent.map(Into::into),
        labels: labels.clone(),
    };
    let commit = |key: &str, name: &str, parent: Option<&str>| Call::Commit {
        key: key.into(),
        name: name.into(),
        parent: parent.map(Into::into),
        labels: labels.clone(),
        usage,
    };
    vec![
        create("a", None),
        commit("a", "b", None),
        Call::CreateRemote { name: "c".into(), parent: Some("b".into()), labels: labels.clone(), slot: 7 },
        create("d", Some("c")),
        Call::Restart,
        commit("d", "e", Some("c")),
        Call::Update { name: "e".into(), paths: vec!["labels".to_owned()], labels: Labels::new() },
        Call::Remove { name: "e".into() },
    ]
}

#[test]
fn what_was_confirmed_is_there_after_a_power_cut_at_any_write() {
    let (made, log) = run(&life());
    let mut chance = StdRng::seed_from_u64(1);
    let mut cuts = 0;
    for at in 0..=log.len() {
        for left in [Left::Nothing, Left::Everything].into_iter().chain([Left::Some; 6]) {
            check(&made, &log, at, left, &mut chance);
            cuts += 1;
        }
    }
    eprintln!("{cuts} power cuts in {} events", log.len());
    assert!(cuts > 500);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn what_was_confirmed_in_random_runs_is_there_after_power_cuts(
        calls in vec(prop_oneof![12 => change(), 1 => Just(Call::Restart)], 1..25),
        seed in any::<u64>(),
    ) {
        let (made, log) = run(&calls);
        let mut chance = StdRng::seed_from_u64(seed);
        for _ in 0..20 {
            let at = chance.random_range(0..=log.len());
            check(&made, &log, at, Left::Some, &mut chance);
        }
    }
}

/// How many random runs: as many as the variable says, or a few.
fn cases() -> u32 {
    std::env::var("STARLING_CRASH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(8)
}
