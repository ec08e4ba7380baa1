//! What threads share, in the places that `tests/interleaved.rs` runs in every order: there this is another module.

pub(crate) use std::sync::atomic::{AtomicU64, fence};

pub(crate) use parking_lot::{Mutex, MutexGuard};
