//! Power cuts at every change that a store makes to its disk: what is found afterwards is right or is not there.
//!
//! A store runs on a disk that notes each change (`crash/recorder.rs`). The machine ends after the first k of them; of what
//! was not synced any part may be lost (`crash/machine.rs`). Another store then starts on what is left.
// Clippy knows tests by their attribute and not what they call.
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code)]
#[path = "layers/blob.rs"]
mod blob;
#[allow(dead_code)]
#[path = "layers/memory.rs"]
mod memory;

#[path = "crash/after.rs"]
mod after;
#[path = "crash/machine.rs"]
mod machine;
#[path = "crash/recorder.rs"]
mod recorder;
#[path = "crash/runs.rs"]
mod runs;
