//! Listing a directory of a chain: the listings of its parts, which are sorted by name, merged.
//!
//! A position is the part's layer and the position in that layer's listing, so that it means the same in every listing and
//! nothing is remembered between two requests for one directory.

use std::ops::ControlFlow;

use estargz::{Kind, NodeId};

use super::{Chain, Child, Joined, part::Part};
use crate::Failure;

/// Bits of a position that are the position in the layer: entries of a layer have fewer (`estargz::limits::ENTRIES`).
const BITS: u32 = 32;

/// Takes an entry: name, what it stands for, its kind, its position.
pub(super) type Visit<'v> = &'v mut dyn FnMut(&[u8], Child, Kind, u64) -> Result<ControlFlow<()>, Failure>;

/// The next entry of one part.
struct Cursor {
    part: Part,
    position: u64,
    name: Vec<u8>,
    node: NodeId,
}

/// Shows the entries of the directory with these parts after the one at `from`, in the order of their names.
pub(super) fn list(chain: &Chain, parts: &[Part], from: u64, visit: Visit<'_>) -> Result<(), Failure> {
    let mut cursors = match from {
        0 => start(chain, parts)?,
        from => resume(chain, parts, from)?,
    };
    while let Some(name) = cursors.iter().map(|cursor| &cursor.name).min().cloned() {
        let mut joined = Joined::default();
        let mut hidden = false;
        let mut position = 0;
        for cursor in cursors.iter().filter(|cursor| cursor.name == name) {
            if position == 0 {
                position = (cursor.part.layer as u64) << BITS | cursor.position;
            }
            if !hidden {
                hidden = joined.add(chain, Part { node: cursor.node, ..cursor.part })?.is_break();
            }
        }
        if let Some(child) = joined.child() {
            let kind = match &child {
                Child::Dir(_) => Kind::Dir,
                Child::Other(_, _, kind) => *kind,
            };
            if visit(&name, child, kind, position)?.is_break() {
                return Ok(());
            }
        }
        cursors = advance(chain, cursors, &name)?;
    }
    Ok(())
}

fn start(chain: &Chain, parts: &[Part]) -> Result<Vec<Cursor>, Failure> {
    collect(parts.iter().map(|&part| cursor(chain, part, 0)))
}

/// The cursors after the entry at a position.
fn resume(chain: &Chain, parts: &[Part], from: u64) -> Result<Vec<Cursor>, Failure> {
    let layer = usize::try_from(from >> BITS).map_err(|_| Failure::Stale)?;
    let position = from & ((1 << BITS) - 1);
    let part = parts.iter().copied().find(|part| part.layer == layer).ok_or(Failure::Stale)?;
    let last = cursor(chain, part, position.checked_sub(1).ok_or(Failure::Stale)?)?;
    let last = last.ok_or(Failure::Stale)?.name;
    collect(parts.iter().map(|&part| {
        let after = chain.layer(part)?.position_after(part.node, &last)?;
        cursor(chain, part, after)
    }))
}

/// Moves on those cursors that are at `name`.
fn advance(chain: &Chain, cursors: Vec<Cursor>, name: &[u8]) -> Result<Vec<Cursor>, Failure> {
    collect(
        cursors
            .into_iter()
            .map(|at| if at.name == name { cursor(chain, at.part, at.position) } else { Ok(Some(at)) }),
    )
}

/// The entry of a part after a position; None at the end.
fn cursor(chain: &Chain, part: Part, after: u64) -> Result<Option<Cursor>, Failure> {
    let mut found = None;
    chain.layer(part)?.list(part.node, after, &mut |entry| {
        let (position, name, node) = (entry.position, entry.name.to_vec(), entry.node);
        found = Some(Cursor { part, position, name, node });
        ControlFlow::Break(())
    })?;
    Ok(found)
}

fn collect(cursors: impl Iterator<Item = Result<Option<Cursor>, Failure>>) -> Result<Vec<Cursor>, Failure> {
    cursors.filter_map(Result::transpose).collect()
}
