//! Windows of chunks that a plan names.

use std::{collections::BTreeSet, sync::Arc};

use estargz::ChunkId;

use super::{Layer, miss::View};
use crate::{
    Class,
    fetch::{
        reach::Reach,
        window::{Chunks, LONGEST_GAP, MOST_CHUNKS, Member, STREAM_LEN, Window},
    },
};

/// The member that a chunk is in, and nothing around it.
const ONE_MEMBER: Reach = Reach { backward: 0, forward: 0, sequential: false };

// === impl Layer ===

impl Layer {
    /// Takes the chunk `first` with its neighbours in the blob out of `wanted`, about `size` bytes of the blob. None if
    /// `first` is here or on its way.
    pub(crate) fn planned_window(
        &self,
        first: ChunkId,
        size: u64,
        wanted: &BTreeSet<u32>,
    ) -> Option<Arc<Window>> {
        let mut table = self.in_flight.lock();
        let members = {
            let view = View { layer: self, table: &table };
            let mut members = vec![view.member(first)?];
            view.extend(&mut members, size, wanted.range(first.0.saturating_add(1)..), After);
            view.extend(&mut members, size, wanted.range(..first.0).rev(), Before);
            members
        };
        let window = Arc::new(Window::new(members, Class::Prefetch, 0));
        table.insert(&window);
        Some(window)
    }

    /// Whether the chunk is here.
    pub(crate) fn has_chunk(&self, chunk: ChunkId) -> bool {
        self.files.chunks.has(chunk)
    }
}

/// On which side of a window its next member is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}
use Side::{After, Before};

// === impl View ===

impl View<'_> {
    /// The member of a free chunk.
    fn member(&self, chunk: ChunkId) -> Option<Member> {
        if !self.is_free(chunk) {
            return None;
        }
        Window::cut(self, chunk, ONE_MEMBER).ok()?.into_iter().next()
    }

    /// Adds the members of `chunks`, from the near to the far, up to the first that is too far away.
    fn extend<'a>(
        &self,
        members: &mut Vec<Member>,
        size: u64,
        chunks: impl Iterator<Item = &'a u32>,
        side: Side,
    ) {
        for chunk in chunks.map(|chunk| ChunkId(*chunk)) {
            let (Some(first), Some(last)) = (members.first(), members.last()) else { return };
            let (start, end) = (first.span.start, last.span.end);
            let Ok(place) = self.chunk(chunk) else { return };
            // Chunks of a member come with the first of them.
            if (start..end).contains(&place.member_start) {
                continue;
            }
            let gap = match side {
                After => place.member_start.checked_sub(end),
                Before => start.checked_sub(place.member_end),
            };
            let span = end.max(place.member_end) - start.min(place.member_start);
            let full =
                members.iter().map(|member| member.chunks.len()).sum::<usize>() >= MOST_CHUNKS as usize;
            if gap.is_none_or(|gap| gap > LONGEST_GAP) || span > size || full {
                return;
            }
            match self.member(chunk) {
                Some(member) if member.need <= STREAM_LEN => {
                    members.insert(if side == Before { 0 } else { members.len() }, member);
                }
                Some(_) => return,
                None => {}
            }
        }
    }
}
