//! A window of one chunk, as far as the table looks at it.

use estargz::ChunkId;

use crate::Class;

#[derive(Debug)]
pub(crate) struct Window(pub(crate) ChunkId);

impl Window {
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkId> {
        std::iter::once(self.0)
    }

    pub(crate) fn class(&self) -> Class {
        Class::Demand
    }

    pub(crate) fn class_at(&self, _at: u64) -> Class {
        Class::Demand
    }
}
