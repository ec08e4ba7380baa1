//! What threads share, in the two places that `tests/interleaved.rs` runs in every order: there this is another module.

pub(crate) use std::sync::atomic::AtomicU64;

pub(crate) use parking_lot::{Mutex, MutexGuard};
