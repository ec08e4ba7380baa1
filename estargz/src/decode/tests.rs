use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;
use crate::limits;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn stream(member: &[u8], need: u64, step: usize) -> Result<Vec<u8>, DecodeError> {
    let mut stream = MemberStream::new(need);
    let mut data = Vec::new();
    for piece in member.chunks(step.max(1)) {
        stream.push(piece, &mut |offset, piece| {
            assert_eq!(offset, data.len() as u64);
            data.extend_from_slice(piece);
        })?;
    }
    stream.finish()?;
    Ok(data)
}

proptest! {
    #[test]
    fn both_ways_give_the_first_bytes(data: Vec<u8>, trailer: Vec<u8>, split: usize, need: usize, step in 1usize..100) {
        // The payload may go on in a second gzip member, and be followed by anything.
        let (first, second) = data.split_at(split % (data.len() + 1));
        let need = need % (data.len() + 1);
        let member = [gzip(first), gzip(second), trailer].concat();
        let mut inflater = Inflater::new();
        prop_assert_eq!(inflater.inflate(&member, need as u64), Ok(&data[..need]));
        prop_assert_eq!(stream(&member, need as u64, step), Ok(data[..need].to_vec()));
    }

    #[test]
    fn never_panics(data: Vec<u8>, flip: usize, need in 0u64..5000) {
        let mut member = gzip(&data);
        let at = flip % member.len();
        member[at] ^= 1 << (flip % 8);
        let mut inflater = Inflater::new();
        let _ = inflater.inflate(&member, need);
        let _ = inflater.inflate(&data, need);
        let _ = stream(&member, need, 7);
    }
}

#[test]
fn an_inflater_can_be_used_again() {
    let mut inflater = Inflater::new();
    for len in [100_000, 10, 0, 20_000_000, 5] {
        let data = vec![len as u8; len];
        assert_eq!(inflater.inflate(&gzip(&data), len as u64).unwrap(), data);
    }
}

#[test]
fn too_little_is_an_error() {
    let member = gzip(b"hello");
    let mut inflater = Inflater::new();
    assert_eq!(inflater.inflate(&member, 6), Err(DecodeError::Short { inflated: 5, needed: 6 }));
    assert_eq!(inflater.inflate(&[], 1), Err(DecodeError::Short { inflated: 0, needed: 1 }));
    // The last literal is coded in the bytes before the end mark.
    for cut in 0..member.len() - 10 {
        assert!(inflater.inflate(&member[..cut], 5).is_err(), "{cut}");
        assert!(stream(&member[..cut], 5, 3).is_err(), "{cut}");
    }
}

#[test]
fn damage_is_an_error() {
    let mut inflater = Inflater::new();
    assert!(matches!(inflater.inflate(b"not gzip at all", 1), Err(DecodeError::Damaged { inflated: 0, .. })));
    // Bytes behind the member that do not start another one.
    let member = [gzip(b"hello"), b"garbage".to_vec()].concat();
    assert_eq!(inflater.inflate(&member, 5).unwrap(), b"hello");
    assert!(matches!(inflater.inflate(&member, 6), Err(DecodeError::Damaged { inflated: 5, .. })));
}

#[test]
fn damage_behind_what_is_needed_does_not_matter() {
    let mut member = gzip(b"hello");
    // A stored block, whose end is then followed by a block of the reserved type.
    member.truncate(10);
    member.extend([0, 5, 0, 0xfa, 0xff]);
    member.extend(b"hello");
    member.extend([0xff; 20]);
    let mut inflater = Inflater::new();
    assert_eq!(inflater.inflate(&member, 5).unwrap(), b"hello");
    assert_eq!(stream(&member, 5, 100).unwrap(), b"hello");
    assert!(inflater.inflate(&member, 6).is_err());
}

#[test]
fn a_bomb_costs_no_more_than_what_is_needed() {
    let bomb = gzip(&vec![0; 100 << 20]);
    let mut inflater = Inflater::new();
    assert_eq!(inflater.inflate(&bomb, 10).unwrap(), [0; 10]);
    assert_eq!(inflater.inflate(&bomb, u64::MAX), Err(DecodeError::TooLong { needed: u64::MAX }));
    assert_eq!(inflater.inflate(&bomb, limits::INFLATE_LEN).unwrap().len() as u64, limits::INFLATE_LEN);
    assert_eq!(stream(&bomb, 70_000, 1000).unwrap().len(), 70_000);
}

#[test]
fn verify_compares_digests() {
    assert_eq!(verify(b"abc", &Digest::of(b"abc")), Ok(()));
    let mismatch = verify(b"abd", &Digest::of(b"abc")).unwrap_err();
    assert_eq!((mismatch.expected, mismatch.actual), (Digest::of(b"abc"), Digest::of(b"abd")));
}

#[test]
fn a_payload_with_its_padding_is_inflated_whole_before_another_member() {
    let data: Vec<u8> = (0..3000u32).flat_map(u32::to_le_bytes).collect();
    let padded = [data.clone(), vec![0; 512 - data.len() % 512]].concat();
    for rest in [Vec::new(), gzip(&[1; 512]), gzip(&[1; 100_000]), b"rest".to_vec()] {
        let member = [gzip(&padded), rest].concat();
        assert_eq!(inflater::tests::whole(&member, data.len()), Some(data.clone()));
    }
    assert_eq!(inflater::tests::whole(&gzip(&data), data.len() + 1), None);
}
