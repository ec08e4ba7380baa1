//! Loom's atomics and locks, in the form of those that the store uses.

pub(crate) use loom::sync::{
    MutexGuard,
    atomic::{AtomicU64, fence},
};

/// A lock that is never poisoned: a panic ends the model.
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}
