//! What plans still have to fetch.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use super::{Measure, PlanId};
use crate::{Access, Layer, fetch::window::Window};

/// Plans take turns, so that images which start together share the link.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    plans: VecDeque<Plan>,
}

#[derive(Debug)]
struct Plan {
    id: PlanId,
    parts: Vec<Part>,
}

/// A layer's part of a plan. Which of its steps no window took the layer knows itself (`layer/planned.rs`).
#[derive(Debug)]
struct Part {
    layer: Weak<Layer>,
    /// By time.
    steps: VecDeque<Access>,
    /// An earlier start made it.
    exact: bool,
}

// === impl Queue ===

impl Queue {
    pub(crate) fn add(&mut self, id: PlanId, layer: &Arc<Layer>, mut steps: Vec<Access>, exact: bool) {
        let count = layer.index().chunk_count();
        steps.retain(|step| step.chunk.0 < count);
        steps.sort_by_key(|step| step.at);
        layer.plan(steps.iter().map(|step| step.chunk), exact);
        let part = Part { layer: Arc::downgrade(layer), steps: steps.into(), exact };
        match self.plans.iter_mut().find(|plan| plan.id == id) {
            // Several Prepares may ask for one layer.
            Some(plan) if exact && plan.parts.iter().any(|part| part.exact && part.is_of(layer)) => {}
            Some(plan) => plan.parts.push(part),
            None => self.plans.push_back(Plan { id, parts: vec![part] }),
        }
    }

    /// The layer of which [`Self::take`] takes next, unless that has come in the meantime.
    pub(crate) fn front(&mut self) -> Option<Arc<Layer>> {
        loop {
            let plan = self.plans.front_mut()?;
            match plan.next().and_then(|part| part.layer.upgrade()) {
                Some(layer) => return Some(layer),
                None => drop(self.plans.pop_front()),
            }
        }
    }

    /// Takes the next window, and gives the next plan its turn.
    pub(crate) fn take(&mut self, measure: Measure) -> Option<(Arc<Layer>, Arc<Window>)> {
        while let Some(plan) = self.plans.front_mut() {
            let Some(part) = plan.next() else {
                self.plans.pop_front();
                continue;
            };
            let taken = part.take(measure);
            if taken.is_some() {
                self.plans.rotate_left(1);
                return taken;
            }
        }
        None
    }

    /// Takes nothing more of `layer`.
    pub(crate) fn forget(&mut self, layer: &Arc<Layer>) {
        self.plans.iter_mut().for_each(|plan| plan.parts.retain(|part| !part.is_of(layer)));
        layer.forget_plan();
    }
}

// === impl Plan ===

impl Plan {
    /// The part with the earliest step.
    fn next(&mut self) -> Option<&mut Part> {
        self.parts.retain_mut(Part::is_left);
        self.parts.iter_mut().min_by_key(|part| part.steps.front().map(|step| step.at))
    }
}

// === impl Part ===

impl Part {
    fn is_of(&self, layer: &Arc<Layer>) -> bool {
        std::ptr::eq(self.layer.as_ptr(), Arc::as_ptr(layer))
    }

    /// Drops the steps that are done. Says whether there are others.
    fn is_left(&mut self) -> bool {
        let Some(layer) = self.layer.upgrade().filter(|layer| !layer.is_removed()) else { return false };
        while let Some(step) = self.steps.front() {
            if layer.is_planned(step.chunk) {
                return true;
            }
            self.steps.pop_front();
        }
        false
    }

    fn take(&mut self, measure: Measure) -> Option<(Arc<Layer>, Arc<Window>)> {
        let layer = self.layer.upgrade()?;
        let first = self.steps.pop_front()?.chunk;
        let window = layer.planned_window(first, measure)?;
        Some((layer, window))
    }
}
