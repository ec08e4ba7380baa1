//! Index files, of which everything is asked: any bytes after a first byte of 0, else a TOC's index with as many bytes
//! changed as the first byte says. A change is a position and the new byte; the TOC follows.

#![no_main]

use estargz::{Index, toc::build_index};
use libfuzzer_sys::fuzz_target;

#[path = "../../estargz/src/toc/tests/index_walk.rs"]
mod index_walk;
#[path = "../section.rs"]
mod section;

/// Bytes of one change.
const CHANGE_LEN: usize = 3;

fuzz_target!(|data: &[u8]| {
    let Some(index) = index_file(data) else { return };
    if let Ok(index) = Index::parse(index) {
        index_walk::touch_everything(&index);
    }
});

fn index_file(data: &[u8]) -> Option<Vec<u8>> {
    let (&changes, rest) = data.split_first()?;
    if changes == 0 {
        return Some(rest.to_vec());
    }
    let (changes, toc) = rest.split_at_checked(usize::from(changes) * CHANGE_LEN)?;
    let section = section::of(toc);
    let mut index = build_index(section.as_slice(), section::TOC_OFFSET, section::BLOB_SIZE).ok()?.index;
    for change in changes.chunks_exact(CHANGE_LEN) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % index.len();
        index[at] = change[2];
    }
    Some(index)
}
