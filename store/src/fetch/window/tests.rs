//! Windows cut from made-up layers.

use std::{collections::BTreeSet, sync::Arc};

use estargz::{Digest, NodeId};
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;

/// A layer of members, each with the lengths of its chunks.
#[derive(Debug)]
struct Made {
    chunks: Vec<Chunk>,
    taken: BTreeSet<u32>,
    damaged: BTreeSet<u32>,
}

impl Made {
    fn new(members: &[(u64, &[u64])]) -> Self {
        let (mut chunks, mut at) = (Vec::new(), 0);
        for &(compressed, lens) in members {
            let mut inner_offset = 0;
            for &len in lens {
                chunks.push(Chunk {
                    node: NodeId::ROOT,
                    member_start: at,
                    member_end: at + compressed,
                    inner_offset,
                    len,
                    content_offset: 0,
                    digest: Digest::of(b""),
                });
                inner_offset += len;
            }
            at += compressed;
        }
        Self { chunks, taken: BTreeSet::new(), damaged: BTreeSet::new() }
    }

    fn cut(&self, wanted: u32, backward: u64, forward: u64) -> Vec<u32> {
        let reach = Reach { backward, forward, steps: 0 };
        let members = Window::cut(self, ChunkId(wanted), reach).unwrap();
        members.iter().flat_map(|member| &member.chunks).map(|id| id.0).collect()
    }
}

impl Chunks for Made {
    fn count(&self) -> u32 {
        self.chunks.len() as u32
    }

    fn chunk(&self, id: ChunkId) -> Result<Chunk, IndexError> {
        if self.damaged.contains(&id.0) {
            return Err(IndexError::Damaged { what: "made so" });
        }
        self.chunks.get(id.0 as usize).copied().ok_or(IndexError::NoSuchChunk(id))
    }

    fn is_free(&self, id: ChunkId) -> bool {
        !self.taken.contains(&id.0)
    }
}

#[test]
fn reaches_forward_and_backward_over_whole_members() {
    let made = Made::new(&[(100, [300].as_slice()); 10]);
    assert_eq!(made.cut(5, 0, 0), [5]);
    assert_eq!(made.cut(5, 0, 399), [5, 6, 7]);
    assert_eq!(made.cut(5, 200, 200), [3, 4, 5, 6]);
    assert_eq!(made.cut(0, 1000, 1 << 30), Vec::from_iter(0..10));
}

#[test]
fn goes_over_short_gaps_only() {
    let mut made = Made::new(&[(20 << 10, [1000].as_slice()); 10]);
    made.taken = BTreeSet::from([1, 4, 5]);
    assert_eq!(made.cut(0, 0, 1 << 20), [0, 2, 3]);
    assert_eq!(made.cut(3, 1 << 20, 1 << 20), [0, 2, 3]);
}

#[test]
fn takes_packed_members_whole_and_long_ones_alone() {
    let made = Made::new(&[(100, &[5, 6, 7]), (100, &[STREAM_LEN + 1]), (100, &[9])]);
    assert_eq!(made.cut(1, 0, 1000), [0, 1, 2]);
    assert_eq!(made.cut(3, 1000, 1000), [0, 1, 2, 3, 4]);
}

#[test]
fn a_member_of_chunks_that_overlap_is_not_decoded_for_each() {
    let mut made = Made::new(&[(1000, [100; 50].as_slice())]);
    made.chunks.iter_mut().for_each(|chunk| chunk.inner_offset = 7);
    assert_eq!(made.cut(20, 0, 1000), [20]);
    assert_eq!(made.cut(49, 0, 1000), [49]);
}

#[test]
fn asks_for_no_more_of_a_member_than_its_chunks_can_take() {
    let made = Made::new(&[(1 << 40, &[100])]);
    let reach = Reach { backward: 0, forward: 0, steps: 0 };
    let members = Window::cut(&made, ChunkId(0), reach).unwrap();
    assert!(members[0].span.end < 100 << 10);
}

#[test]
fn what_is_waited_for_is_urgent_and_no_more() {
    let made = Made::new(&[(100, &[50]), (100, &[50]), (100, &[50]), (100, &[50])]);
    let reach = Reach { backward: 0, forward: 1000, steps: 0 };
    let members = Window::cut(&made, ChunkId(0), reach).unwrap();
    let window = Window::new(members.clone(), Class::Background, 0);
    let start = |number: usize| members[number].span.start;
    assert_eq!(window.claim_at(start(0)), Claim::Background);
    assert!(window.wait_for(ChunkId(1), 1), "it was less urgent");
    assert!(!window.wait_for(ChunkId(0), 2), "it is not any more");
    let claims = [0, 1, 2].map(|number| window.claim_at(start(number)));
    assert_eq!(claims, [Claim::Waited, Claim::Waited, Claim::Background]);
    assert_eq!((window.class(), window.class_at(start(2))), (Class::Demand, Class::Background));
}

#[test]
fn the_tail_of_a_window_is_as_urgent_as_it_was_of_use_lately() {
    let made = Made::new(&[(100, &[50]), (100, &[50]), (100, &[50]), (100, &[50])]);
    let reach = Reach { backward: 0, forward: 1000, steps: 0 };
    let members = Window::cut(&made, ChunkId(0), reach).unwrap();
    let (second, third) = (members[1].span.start, members[2].span.start);
    let turn = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let window = Window::new(members, Class::Demand, 0).with_tail(Tail { start: third, _turn: turn });
    window.wait_for(ChunkId(0), 7);
    assert_eq!(window.claim_at(0), Claim::Waited);
    assert_eq!((window.claim_at(second), window.class_at(second)), (Claim::Near, Class::Demand));
    assert_eq!(window.claim_at(third), Claim::Tail(Reverse(7)));
    assert_eq!(window.class_at(third), Class::Background);
    window.wait_for(ChunkId(2), 9);
    assert_eq!(window.claim_at(third), Claim::Waited);
    assert_eq!(window.claim_at(third + 100), Claim::Tail(Reverse(9)));
}

#[test]
fn a_member_of_many_chunks_is_in_a_window_once() {
    for (count, wanted) in [(3000, 1500), (10_000, 5000), (10_000, 0), (10_000, 9999), (10_000, 7000)] {
        let lens = vec![10; count];
        let made = Made::new(&[(900, &[5, 5]), (9000, &lens), (900, &[5])]);
        let reach = Reach { backward: 1 << 20, forward: 1 << 20, steps: 0 };
        let members = Window::cut(&made, ChunkId(wanted + 2), reach).unwrap();
        assert!(members.is_sorted_by(|a, b| a.span.end <= b.span.start), "{count} {wanted}");
        assert!(members.iter().any(|member| member.chunks.contains(&ChunkId(wanted + 2))));
        let ids: Vec<_> = members.iter().flat_map(|member| &member.chunks).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert!(ids.len() >= count);
    }
}

#[test]
fn windows_of_the_longest_member_are_few() {
    const COUNT: u32 = 300_000;
    let mut made = Made::new(&[(1 << 20, &[10; COUNT as usize])]);
    let (mut wanted, mut windows) = (COUNT / 2, 0);
    while (made.taken.len() as u32) < COUNT {
        let ids = made.cut(wanted, 1 << 20, 1 << 20);
        assert!(ids.contains(&wanted));
        assert!(ids.len() <= MOST_OF_MEMBER as usize * 3 / 2);
        windows += 1;
        made.taken.extend(ids);
        wanted = (0..COUNT).find(|id| !made.taken.contains(id)).unwrap_or_default();
    }
    assert!(windows <= 12, "{windows} windows");
}

#[test]
fn runs_are_counted() {
    for most in 0..40 {
        for len in 0..=most {
            assert_eq!(run(most, |n| n <= len), len);
        }
    }
    assert_eq!(run(u32::MAX, |_| true), u32::MAX);
}

#[test]
fn a_damaged_neighbour_ends_the_window() {
    let mut made = Made::new(&[(100, [300].as_slice()); 10]);
    made.damaged = BTreeSet::from([2, 7]);
    assert_eq!(made.cut(5, 1000, 1000), [3, 4, 5, 6]);
    let mut packed = Made::new(&[(100, [30; 10].as_slice())]);
    packed.damaged = BTreeSet::from([7]);
    assert!(packed.cut(5, 1000, 1000).contains(&5));
}

proptest! {
    #[test]
    fn members_of_any_size_are_cut_once(
        counts in prop::collection::vec(prop_oneof![1usize..4, 2000usize..12_000], 1..6),
        taken in prop::collection::btree_set(0u32..20_000, 0..40),
        damaged in prop::collection::btree_set(0u32..20_000, 0..4),
        wanted in any::<prop::sample::Index>(),
        (backward, forward) in (0u64..400_000, 0u64..400_000),
    ) {
        let lens: Vec<_> = counts.iter().map(|count| vec![7; *count]).collect();
        let shapes: Vec<_> = lens.iter().map(|lens| (lens.len() as u64 + 100, lens.as_slice())).collect();
        let mut made = Made::new(&shapes);
        let wanted = wanted.index(made.chunks.len()) as u32;
        (made.taken, made.damaged) = (taken, damaged);
        made.taken.remove(&wanted);
        made.damaged.remove(&wanted);
        let reach = Reach { backward, forward, steps: 0 };
        let cut = Window::cut(&made, ChunkId(wanted), reach).unwrap();
        let ids: Vec<u32> = cut.iter().flat_map(|member| &member.chunks).map(|id| id.0).collect();
        prop_assert!(ids.contains(&wanted));
        prop_assert!(ids.is_sorted_by(|a, b| a < b));
        prop_assert!(cut.is_sorted_by(|a, b| a.span.end <= b.span.start));
        prop_assert!(ids.iter().all(|id| made.is_free(ChunkId(*id)) && !made.damaged.contains(id)));
    }

    #[test]
    fn windows_are_ordered_free_and_hold_what_is_wanted(
        members in prop::collection::vec((1u64..50_000, prop::collection::vec(1u64..5000, 1..4)), 1..40),
        taken in prop::collection::btree_set(0u32..100, 0..40),
        wanted in any::<prop::sample::Index>(),
        backward in 0u64..200_000,
        forward in 0u64..200_000,
    ) {
        let shapes: Vec<_> = members.iter().map(|(len, chunks)| (*len, chunks.as_slice())).collect();
        let mut made = Made::new(&shapes);
        let wanted = wanted.index(made.chunks.len()) as u32;
        made.taken = taken;
        made.taken.remove(&wanted);
        let reach = Reach { backward, forward, steps: 0 };
        let cut = Window::cut(&made, ChunkId(wanted), reach).unwrap();
        let ids: Vec<u32> = cut.iter().flat_map(|member| &member.chunks).map(|id| id.0).collect();
        prop_assert!(ids.contains(&wanted));
        prop_assert!(ids.is_sorted_by(|a, b| a < b));
        prop_assert!(ids.iter().all(|id| made.is_free(ChunkId(*id))));
        prop_assert!(cut.is_sorted_by(|a, b| a.span.end <= b.span.start));
        let own = made.chunks[wanted as usize];
        for member in &cut {
            prop_assert!(member.span.start + backward >= own.member_start);
            prop_assert!(member.span.start == own.member_start || member.span.end <= own.member_start + forward.max(1));
            for id in &member.chunks {
                let chunk = made.chunks[id.0 as usize];
                prop_assert!(chunk.inner_offset + chunk.len <= member.need);
                prop_assert_eq!(chunk.member_start, member.span.start);
            }
        }
    }
}
