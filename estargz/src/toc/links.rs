//! Hard links whose targets come after them, or are such links themselves.

use std::collections::HashMap;

use super::{
    Problem, TocError,
    error::Refusal,
    names::Slot,
    tree::{PENDING_LINK, Tree, WHITEOUT},
};
use crate::index::Kind;

/// Makes every name of a pending link stand for the node where its chain of targets ends. `is_shown` tells whether a
/// directory is part of the layer; names in others do not matter any more.
pub(super) fn resolve(tree: &mut Tree, is_shown: impl Fn(Slot) -> bool) -> Result<(), TocError> {
    let mut ends = HashMap::new();
    for id in 0..tree.names.len() {
        let Some(name) = tree.names.get(id).copied() else { continue };
        if tree.node(name.node).kind != PENDING_LINK || !is_shown(name.dir) {
            continue;
        }
        let end = match end_of(tree, name.node, &mut ends) {
            Ok(end) => end,
            Err(refusal) => return Err(refusal.of(&tree.path_of(name.node))),
        };
        tree.names.get_mut(id).into_iter().for_each(|name| name.node = end);
    }
    Ok(())
}

/// Follows a chain of pending links. `ends` has where known chains end, and nothing for the links of this one.
fn end_of(tree: &mut Tree, link: Slot, ends: &mut HashMap<Slot, Option<Slot>>) -> Result<Slot, Refusal> {
    let mut chain = Vec::new();
    let mut slot = link;
    let end = loop {
        match ends.get(&slot) {
            Some(Some(end)) => break *end,
            Some(None) => return Err(Problem::LinkCycle.into()),
            None => {}
        }
        let node = tree.node(slot);
        if node.kind != PENDING_LINK {
            break slot;
        }
        ends.insert(slot, None);
        chain.push(slot);
        let target =
            String::from_utf8_lossy(tree.strings.get(node.a.get(), node.b.get() as usize)).into_owned();
        let found = tree.find(&target)?.map(|slot| (slot, tree.node(slot)));
        slot = match found {
            Some((_, node)) if node.kind == Kind::Dir as u8 => {
                return Err(Problem::Nonsense("is a hard link to a directory").into());
            }
            Some((slot, node)) if node.flags & WHITEOUT == 0 => slot,
            _ => return Err(Problem::LinkTargetMissing(target).into()),
        };
    };
    ends.extend(chain.into_iter().map(|link| (link, Some(end))));
    Ok(end)
}
