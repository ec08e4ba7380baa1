//! Listing a directory of a chain: the listings of its parts, which are sorted by name, merged.
//!
//! A position is the part's layer and the position in that layer's listing, so that it means the same in every listing and
//! nothing is remembered between two requests for one directory.
//!
//! Names that are hidden fill no reply, so one request might go through a million of them: more than [`HIDDEN`] in a row are
//! an error.

use std::ops::ControlFlow;

use estargz::NodeId;

use super::{Chain, Child, part::Part};
use crate::Failure;

/// Bits of a position that are the position in the layer: entries of a layer have fewer (`estargz::limits::ENTRIES`).
const BITS: u32 = 32;

/// How many names in a row may be hidden: a hundred times what images have, and a tenth of a second.
const HIDDEN: usize = 100_000;

/// Takes an entry: name, what it stands for, its position.
pub(super) type Visit<'v> = &'v mut dyn FnMut(&[u8], Child, u64) -> Result<ControlFlow<()>, Failure>;

/// The next entry of one part.
struct Cursor {
    part: Part,
    position: u64,
    name: Vec<u8>,
    node: NodeId,
}

/// Shows the entries of the directory with these parts after the one at `from`, in the order of their names.
pub(super) fn list(chain: &Chain, parts: &[Part], from: u64, visit: Visit<'_>) -> Result<(), Failure> {
    if let &[alone] = parts {
        return list_alone(chain, alone, from, visit);
    }
    let mut cursors = match from {
        0 => start(chain, parts)?,
        from => resume(chain, parts, from)?,
    };
    let mut in_a_row = 0;
    while let Some(name) = cursors.iter().map(|cursor| &cursor.name).min().cloned() {
        let at_name = || cursors.iter().filter(|cursor| cursor.name == name);
        let position = at_name().next().map_or(0, |first| place(first.part) | first.position);
        match chain.join(at_name().map(|cursor| Ok(Part { node: cursor.node, ..cursor.part })))? {
            Some(child) => {
                in_a_row = 0;
                if visit(&name, child, position)?.is_break() {
                    return Ok(());
                }
            }
            None => skip(&mut in_a_row)?,
        }
        cursors = advance(chain, cursors, &name)?;
    }
    Ok(())
}

/// A directory that one layer has alone is that layer's, without its whiteouts.
fn list_alone(chain: &Chain, part: Part, from: u64, visit: Visit<'_>) -> Result<(), Failure> {
    let after = if from == 0 { 0 } else { from.checked_sub(place(part)).ok_or(Failure::Stale)? };
    let (mut failed, mut in_a_row) = (None, 0);
    chain.layer(part)?.list(part.node, after, &mut |entry| {
        let mut show = || {
            let Some(child) = chain.join(std::iter::once(Ok(Part { node: entry.node, ..part })))? else {
                skip(&mut in_a_row)?;
                return Ok(ControlFlow::Continue(()));
            };
            in_a_row = 0;
            visit(entry.name, child, place(part) | entry.position)
        };
        show().unwrap_or_else(|failure| {
            failed = Some(failure);
            ControlFlow::Break(())
        })
    })?;
    failed.map_or(Ok(()), Err)
}

/// The position before all that a part's layer shows.
fn place(part: Part) -> u64 {
    (part.layer as u64) << BITS
}

/// Counts a hidden name.
fn skip(in_a_row: &mut usize) -> Result<(), Failure> {
    *in_a_row += 1;
    if *in_a_row > HIDDEN { Err(Failure::TooManyHidden(HIDDEN)) } else { Ok(()) }
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
