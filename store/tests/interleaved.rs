//! The chunk map's bits, the count of holes and the table of chunks on their way, with their threads in every order and
//! every order of memory.
//!
//! Takes their sources in, with loom's atomics and locks in place of the real ones.
// Clippy knows tests by their attribute and not what they call.
#![allow(clippy::unwrap_used, clippy::panic)]

use store::{Class, ReadError};

#[allow(dead_code)]
#[path = "../src/files/chunk_map/bits.rs"]
mod bits;
#[path = "interleaved/fetch.rs"]
mod fetch;
#[path = "../src/layer/holes.rs"]
mod holes;
mod decode {
    /// Nobody decodes here.
    #[derive(Debug)]
    pub(crate) struct MemberJob;
}
#[path = "interleaved/runs.rs"]
mod runs;
#[path = "interleaved/sync.rs"]
mod sync;
