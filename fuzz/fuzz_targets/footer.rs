//! Footers: the input is the end of a blob whose size is the first eight bytes.

#![no_main]

use estargz::footer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((size, tail)) = data.split_first_chunk() else { return };
    let blob_size = u64::from_le_bytes(*size);
    if let Ok(footer) = footer::parse(tail, blob_size) {
        assert!(footer.toc_offset > 0 && footer.toc_offset < blob_size - footer.len);
        assert!(footer.len <= footer::MAX_LEN as u64);
    }
});
