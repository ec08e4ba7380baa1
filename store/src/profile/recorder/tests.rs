use std::{collections::BTreeSet, sync::Arc, thread};

use proptest::prelude::*;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn ids(chunks: &[u32]) -> impl Iterator<Item = ChunkId> {
    chunks.iter().copied().map(ChunkId)
}

fn chunks(unsaved: Option<Unsaved>) -> Vec<u32> {
    unsaved.map_or(Vec::new(), |unsaved| unsaved.accesses.iter().map(|access| access.chunk.0).collect())
}

proptest! {
    /// The model: a list that takes what it does not have.
    #[test]
    fn notes_each_chunk_once_in_order(reads in proptest::collection::vec(
        (proptest::collection::vec(0u32..220, 0..8), any::<bool>()), 0..60,
    )) {
        let (recorder, starts) = (Recorder::new(200, LONG, 0), Starts::default());
        let (mut model, mut saved) = (Vec::new(), 0);
        for (read, save) in reads {
            recorder.note(&starts, ids(&read));
            for chunk in read {
                // There are 200 chunks, and room for those that fill a word up.
                if chunk < 256 && !model.contains(&chunk) {
                    model.push(chunk);
                }
            }
            if save {
                prop_assert_eq!(chunks(recorder.unsaved()), &model[saved..]);
                saved = model.len();
            }
        }
        prop_assert_eq!(chunks(recorder.unsaved()), &model[saved..]);
        prop_assert!(recorder.unsaved().is_none());
    }
}

#[test]
fn ends_some_time_after_the_first_read_and_says_so_once() {
    let (recorder, starts) = (Recorder::new(100, Duration::from_millis(30), 0), Starts::default());
    thread::sleep(Duration::from_millis(50));
    assert!(recorder.unsaved().is_none() && recorder.is_on(), "its time begins with the first read");
    recorder.note(&starts, ids(&[5]));
    let unsaved = recorder.unsaved().unwrap();
    assert!(!unsaved.finished);
    thread::sleep(Duration::from_millis(50));
    recorder.note(&starts, ids(&[6]));
    let end = recorder.unsaved().unwrap();
    assert!(end.finished && end.accesses.is_empty() && !recorder.is_on());
    assert!(recorder.unsaved().is_none());
}

#[test]
fn goes_on_after_what_a_restart_cut_off() {
    let (recorder, starts) = (Recorder::new(100, LONG, 7000), Starts::default());
    recorder.note(&starts, ids(&[5]));
    assert!(recorder.unsaved().unwrap().accesses[0].at >= 7000);
}

#[test]
fn layers_of_one_start_share_its_clock() {
    let starts = Starts::default();
    let now = Instant::now();
    let began = starts.begun(now);
    assert_eq!(starts.begun(now + Duration::from_secs(8)), began);
    assert_eq!(starts.begun(now + Duration::from_secs(16)), began);
    assert_eq!(starts.begun(now + Duration::from_secs(30)), now + Duration::from_secs(30));
}

#[test]
fn nothing_is_lost_between_threads() {
    let (recorder, starts) = (Arc::new(Recorder::new(4096, LONG, 0)), Arc::new(Starts::default()));
    let readers: Vec<_> = (0..4)
        .map(|shift| {
            let (recorder, starts) = (Arc::clone(&recorder), Arc::clone(&starts));
            thread::spawn(move || {
                (0..4096).for_each(|n| recorder.note(&starts, ids(&[(n * 7 + shift) % 4096])))
            })
        })
        .collect();
    let mut saved = chunks(recorder.unsaved());
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    saved.extend(chunks(recorder.unsaved()));
    assert_eq!(saved.len(), 4096);
    assert_eq!(saved.into_iter().collect::<BTreeSet<_>>().len(), 4096);
}

#[test]
fn a_recorder_that_is_off_notes_nothing() {
    let recorder = Recorder::off();
    recorder.note(&Starts::default(), ids(&[0, 1]));
    assert!(recorder.unsaved().is_none());
}
