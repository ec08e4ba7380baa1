//! Members: whole and in pieces must give the same bytes, and never more than asked for.

#![no_main]

use estargz::decode::{Inflater, MemberStream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [need_low, need_high, step, member @ ..] = data else { return };
    let need = u64::from(u16::from_le_bytes([*need_low, *need_high]));

    let mut stream = MemberStream::new(need);
    let mut streamed = Vec::new();
    let pushed = member.chunks(usize::from(*step) + 1).try_for_each(|piece| {
        stream.push(piece, &mut |offset, piece| {
            assert_eq!(offset, streamed.len() as u64);
            streamed.extend_from_slice(piece);
        })
    });
    let streamed_all = pushed.and_then(|()| stream.finish()).is_ok();
    assert!(streamed.len() as u64 <= need && streamed_all == (streamed.len() as u64 == need));

    // The stream checks a gzip header's own checksum, which the other way ignores.
    let mut inflater = Inflater::new();
    match inflater.inflate(member, need) {
        Ok(whole) => assert!(whole.len() as u64 == need && whole.starts_with(&streamed), "both ways agree"),
        Err(_) => assert!(!streamed_all, "both ways agree"),
    }
});
