//! A window of one chunk, as far as the table looks at it.

use estargz::ChunkId;

use crate::Class;

#[derive(Debug)]
pub(crate) struct Window(pub(crate) ChunkId);

/// Nothing of it is decoded here.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) span: std::ops::Range<u64>,
    pub(crate) chunks: Vec<ChunkId>,
    pub(crate) passing: bool,
}

impl Window {
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkId> {
        std::iter::once(self.0)
    }

    pub(crate) fn all_chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.chunks()
    }

    pub(crate) fn class(&self) -> Class {
        Class::Demand
    }

    pub(crate) fn class_at(&self, _at: u64) -> Class {
        Class::Demand
    }
}
