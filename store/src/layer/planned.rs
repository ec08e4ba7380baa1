//! Windows of chunks that a plan names.
//!
//! A read that misses while a plan is under way is part of what the plan expects: its window takes the plan's chunks
//! around it and nothing else, for whatever else the link carried then would be in the plan's way. What lies between them,
//! which it carries anyway, is kept if the layer will be completed and there is memory for it: nobody waits for it, so it is
//! decoded by idle threads, and until its bytes come whoever wants it asks for it as if it were not on its way.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use estargz::ChunkId;

use super::{Layer, miss::View};
use crate::{
    Class,
    fetch::{
        in_flight::Table,
        reach::Reach,
        window::{Chunks, LONGEST_GAP, Member, STREAM_LEN, Window},
    },
    plan::Measure,
};

/// What is missed of a plan is asked for with this part of what the link carries meanwhile: the plan goes on.
const MISSED_SHARE: u64 = 2;

/// Gaps are together about this part of what is wanted of the layer at most.
const WASTE: u64 = 3;

/// What plans want of a layer.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// Chunks that no window took.
    wanted: BTreeSet<u32>,
    /// Whether all of them were read by an earlier start, so that their neighbours are not worth a guess.
    exact: bool,
    /// Bytes that may still be received in long gaps without being wanted.
    allowance: u64,
}

// === impl Layer ===

impl Layer {
    /// Puts `chunks` on the list of what plans want; `exact` says that an earlier start read them.
    pub(crate) fn plan(&self, chunks: impl Iterator<Item = ChunkId>, exact: bool) {
        let planned = &mut *self.planned.lock();
        planned.exact = exact && (planned.exact || planned.wanted.is_empty());
        planned.wanted.extend(chunks.map(|chunk| chunk.0));
        planned.allowance = self.allowance(&planned.wanted);
    }

    /// What may be received in long gaps between `wanted`: short ones, which cost less than another request, are in
    /// any case, and leave less for them.
    fn allowance(&self, wanted: &BTreeSet<u32>) -> u64 {
        let (mut length, mut short, mut end) = (0, 0, None);
        for place in wanted.iter().filter_map(|chunk| self.index().chunk(ChunkId(*chunk)).ok()) {
            if end == Some(place.member_end) {
                continue;
            }
            length += place.member_end.saturating_sub(place.member_start);
            let gap = end.map_or(0, |end| place.member_start.saturating_sub(end));
            short += if gap <= LONGEST_GAP { gap } else { 0 };
            end = Some(place.member_end);
        }
        (length / WASTE).saturating_sub(short)
    }

    /// Plans want nothing more of the layer.
    pub(crate) fn forget_plan(&self) {
        self.planned.lock().wanted.clear();
    }

    /// Whether plans want `chunk`, and it is not here.
    pub(crate) fn is_planned(&self, chunk: ChunkId) -> bool {
        let wanted = &mut self.planned.lock().wanted;
        if self.has_chunk(chunk) {
            wanted.remove(&chunk.0);
        }
        wanted.contains(&chunk.0)
    }

    /// Takes the chunk `first` with its neighbours in the blob off the list of what plans want. None if `first` is here or
    /// on its way.
    pub(crate) fn planned_window(&self, first: ChunkId, measure: Measure) -> Option<Arc<Window>> {
        let mut table = self.in_flight.lock();
        let window = self.planned_around(&table, first, measure, Class::Prefetch, &mut self.planned.lock());
        if let Some(window) = &window {
            table.insert(window);
        }
        window
    }

    /// The same for a chunk that was missed and that an exact plan wants. It is not put into the table.
    pub(super) fn missed_in_plan(&self, table: &Table, chunk: ChunkId, product: u64) -> Option<Arc<Window>> {
        let mut planned = self.planned.lock();
        if !planned.exact || !planned.wanted.contains(&chunk.0) {
            return None;
        }
        let measure = Measure { size: product / MISSED_SHARE, gap: LONGEST_GAP };
        self.planned_around(table, chunk, measure, Class::Demand, &mut planned)
    }

    fn planned_around(
        &self,
        table: &Table,
        first: ChunkId,
        measure: Measure,
        class: Class,
        planned: &mut Planned,
    ) -> Option<Arc<Window>> {
        let Planned { wanted, allowance, .. } = planned;
        wanted.remove(&first.0);
        let view = View { layer: self, table };
        let mut members = vec![view.member(first)?];
        let after = wanted.range(first.0.saturating_add(1)..);
        view.extend(&mut members, measure, allowance, after, After);
        view.extend(&mut members, measure, allowance, wanted.range(..first.0).rev(), Before);
        if self.will_be_completed() && self.engine.keeping.is_on() {
            members = view.with_what_passes(members);
        }
        let window = Arc::new(Window::new(members, class, 0));
        for chunk in window.chunks() {
            wanted.remove(&chunk.0);
        }
        Some(window)
    }

    /// Whether the chunks of `member`, which passes with `window`, are taken: all of them are free.
    pub(crate) fn takes_passing(&self, window: &Arc<Window>, member: &Member) -> bool {
        let mut table = self.in_flight.lock();
        let free = member.chunks.iter().all(|&chunk| View { layer: self, table: &table }.is_free(chunk));
        if free {
            member.chunks.iter().for_each(|&chunk| table.add(chunk, window));
        }
        free
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
        Window::cut(self, chunk, Reach::ONE_MEMBER).ok()?.into_iter().next()
    }

    /// `members`, in blob order, with those between them: their bytes come with the same response, and who completes the layer
    /// need not ask for them once more.
    fn with_what_passes(&self, members: Vec<Member>) -> Vec<Member> {
        let count: usize = members.iter().map(|member| member.chunks.len()).sum();
        let mut most = (self.most_chunks() as usize).saturating_sub(count);
        let mut all: Vec<Member> = Vec::with_capacity(members.len());
        for member in members {
            if let Some(before) = all.last() {
                let passing = self.between(before.span.end..member.span.start, &mut most);
                all.extend(passing);
            }
            all.push(member);
        }
        all
    }

    /// The free members of a stretch of the blob, in its order; `most` chunks or little more, and as many less are left.
    fn between(&self, gap: Range<u64>, most: &mut usize) -> Vec<Member> {
        let index = self.layer.index();
        let (mut members, mut ids) = (Vec::new(), index.chunks_in(gap.clone()));
        while *most > 0
            && let Some(first) = self.layer.first_free(self.table, &ids)
            && let Some(member) = self.member(first)
        {
            *most = most.saturating_sub(member.chunks.len());
            ids.start = index.chunks_in(member.span.start + 1..gap.end).start.max(first.0 + 1);
            // A damaged index may have anything in between.
            let after = members.last().map_or(gap.start, |before: &Member| before.span.end);
            if after <= member.span.start && member.span.end <= gap.end && member.need <= STREAM_LEN {
                members.push(Member { passing: true, ..member });
            }
        }
        members
    }

    /// Adds the members of `chunks`, from the near to the far, up to the first that is too far away.
    fn extend<'a>(
        &self,
        members: &mut Vec<Member>,
        measure: Measure,
        allowance: &mut u64,
        chunks: impl Iterator<Item = &'a u32>,
        side: Side,
    ) {
        let mut count: usize = members.iter().map(|member| member.chunks.len()).sum();
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
            let full = count >= self.most_chunks() as usize;
            let Some(gap) = gap.filter(|_| span <= measure.size && !full) else { return };
            let cost = if gap > LONGEST_GAP { gap } else { 0 };
            if gap > measure.gap || cost > *allowance {
                return;
            }
            match self.member(chunk) {
                Some(member) if member.need <= STREAM_LEN => {
                    *allowance -= cost;
                    count += member.chunks.len();
                    members.insert(if side == Before { 0 } else { members.len() }, member);
                }
                Some(_) => return,
                None => {}
            }
        }
    }
}
