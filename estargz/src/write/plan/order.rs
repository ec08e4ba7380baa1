//! The order of the blob: prioritized files, the landmark that ends them, everything else as it came.

use std::collections::HashSet;

use super::{
    Element, Entry, clean,
    tree::{Slot, Tree},
};
use crate::write::{NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, tar::Kind};

/// The elements of a layer in blob order.
#[derive(Debug)]
pub(super) struct Ordered {
    pub(super) elements: Vec<Element>,
    pub(super) missed: Vec<String>,
}

/// Orders `tree`. Parents come before what is in them, and targets before their hard links.
pub(super) fn order(mut tree: Tree, prioritized: &[String]) -> Ordered {
    let mut picked = Picked::default();
    let mut missed = Vec::new();
    for name in prioritized {
        if !picked.pick(&tree, &clean(name)) {
            missed.push(name.clone());
        }
    }
    // A list that names nothing of this layer prioritizes nothing in it.
    let landmark = if picked.slots.is_empty() { NO_PREFETCH_LANDMARK } else { PREFETCH_LANDMARK };
    let first: Vec<_> = picked.slots.iter().filter_map(|&slot| tree.elements.get_mut(slot)?.take()).collect();
    let mut elements = first;
    elements.push(Element::Entry(Box::new(Entry::landmark(landmark))));
    elements.extend(tree.elements.into_iter().flatten());
    Ordered { elements, missed }
}

#[derive(Debug, Default)]
struct Picked {
    slots: Vec<Slot>,
    seen: HashSet<Slot>,
}

// === impl Picked ===

impl Picked {
    /// Picks the entry `path` with what it needs; `false` if the layer has neither it nor anything below it.
    fn pick(&mut self, tree: &Tree, path: &str) -> bool {
        let Some(&slot) = tree.names.get(path) else {
            let below = format!("{path}/");
            let next = tree.names.range(below.clone()..).next();
            return next.is_some_and(|(name, _)| name.starts_with(&below));
        };
        // The targets of a chain of hard links, last one first.
        let mut chain = vec![(path.to_owned(), slot)];
        while let Some(entry) = chain.last().and_then(|&(_, slot)| tree.entry(slot))
            && entry.header.kind == Kind::HardLink
        {
            let target = entry.link_path();
            match tree.names.get(&target) {
                Some(&slot) => chain.push((target, slot)),
                None => break,
            }
        }
        for (path, slot) in chain.into_iter().rev() {
            self.add_ancestors(tree, &path);
            self.add(slot);
        }
        true
    }

    /// Adds the directories above `path` that have entries; a layer need not have them all.
    fn add_ancestors(&mut self, tree: &Tree, path: &str) {
        let ancestors = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        for ancestor in std::iter::once("").chain(ancestors) {
            if let Some(&slot) = tree.names.get(ancestor) {
                self.add(slot);
            }
        }
    }

    fn add(&mut self, slot: Slot) {
        if self.seen.insert(slot) {
            self.slots.push(slot);
        }
    }
}
