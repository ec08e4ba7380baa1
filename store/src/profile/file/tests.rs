use proptest::prelude::*;

use super::*;

fn key() -> LayerKey {
    LayerKey { blob: Digest::of(b"blob"), toc: Digest::of(b"toc") }
}

fn access(chunk: u32, at: u32) -> Access {
    Access { chunk: ChunkId(chunk), at }
}

fn profile(accesses: &[Access]) -> Profile {
    let mut profile = Profile::new(key());
    profile.add(accesses);
    profile
}

#[test]
fn reads_what_it_wrote_and_nothing_that_was_changed() {
    let mut profile = profile(&[access(7, 0), access(3, 5), access(9, 1000)]);
    for finished in [false, true] {
        if finished {
            profile.finish();
        }
        let bytes = profile.encode();
        assert_eq!(Profile::parse(&bytes).as_ref(), Ok(&profile));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Profile::parse(&changed).is_err(), "byte {at}");
            assert!(Profile::parse(&bytes[..at]).is_err(), "{at} bytes");
        }
    }
}

#[test]
fn a_count_that_lies_costs_nothing() {
    let mut bytes = profile(&[access(1, 1)]).encode();
    bytes[80..84].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Profile::parse(&bytes), Err(InvalidProfile::TooLong(u32::MAX.into())));
    bytes[80..84].copy_from_slice(&60_000_u32.to_le_bytes());
    assert!(matches!(Profile::parse(&bytes), Err(InvalidProfile::Length { expected: 480_116, actual: 124 })));
}

#[test]
fn accesses_out_of_order_or_twice_are_refused_though_their_checksum_is_right() {
    for accesses in [[access(1, 5), access(2, 4)], [access(1, 5), access(1, 6)]] {
        let profile = Profile {
            key: key(),
            finished: false,
            whole: accesses.len() % 2 == 0,
            accesses: accesses.to_vec(),
        };
        assert_eq!(Profile::parse(&profile.encode()), Err(InvalidProfile::Order));
    }
}

#[test]
fn a_warm_start_changes_nothing() {
    let mut cold = profile(&[access(4, 0), access(2, 10), access(8, 20)]);
    let before = cold.clone();
    assert!(!cold.add(&[access(8, 0), access(2, 1)]));
    assert!(!cold.add(&[]));
    assert_eq!(cold, before);
}

#[test]
fn the_length_is_bounded() {
    let most = Profile::MOST_ACCESSES as u32;
    let mut profile = profile(&(0..most + 10).map(|chunk| access(chunk, chunk)).collect::<Vec<_>>());
    assert_eq!(profile.accesses().len(), Profile::MOST_ACCESSES);
    assert!(!profile.add(&[access(most + 1, 0)]));
    assert!(profile.encode().len() < 600_000);
}

proptest! {
    /// Adding keeps everything that is listed in its order, adds each new chunk once, and is idempotent.
    #[test]
    fn adding_only_ever_adds(sessions in proptest::collection::vec(
        proptest::collection::vec((0u32..40, 0u32..50), 0..60), 1..6,
    )) {
        let mut profile = Profile::new(key());
        let mut all = HashSet::new();
        for session in sessions {
            let session: Vec<_> = session.into_iter().map(|(chunk, at)| access(chunk, at)).collect();
            let before = profile.clone();
            let news = session.iter().any(|access| !all.contains(&access.chunk));
            all.extend(session.iter().map(|access| access.chunk));
            prop_assert_eq!(profile.add(&session), news);
            let kept: Vec<_> =
                profile.accesses().iter().filter(|access| before.accesses().contains(access)).copied().collect();
            prop_assert_eq!(kept, before.accesses());
            let listed: Vec<_> = profile.accesses().iter().map(|access| access.chunk).collect();
            prop_assert_eq!(listed.len(), all.len());
            prop_assert_eq!(listed.into_iter().collect::<HashSet<_>>(), all.clone());
            prop_assert!(profile.accesses().is_sorted_by_key(|access| access.at));
            prop_assert!(!profile.add(&session));
            prop_assert_eq!(Profile::parse(&profile.encode()), Ok(profile.clone()));
        }
    }
}
