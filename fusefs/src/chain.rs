//! The layers of a chain as one tree, merged as overlayfs would: an upper layer's name hides a lower one's, directories
//! join, whiteouts and opaque directories hide what is below them.
//!
//! Overlayfs looks a name up in every layer that has its directory, and each look-up is a message to this process: of an
//! image with sixty layers, sixty for one name. Here the same search stays in memory, and the kernel asks once.
//!
//! Invariants: nothing is below a chain in an overlay, so no whiteout shows and no directory is opaque. Directories are
//! the chain's own, for the kernel lets a directory have one place only; everything else is the layer's inode itself, so
//! that containers of different images share its pages. All answers are a pure function of the layers: what is remembered
//! ([`Chain::merged`]) can be forgotten at any time.

mod listing;
mod part;

use std::{collections::HashMap, fmt, ops::ControlFlow, sync::Arc};

use estargz::{Kind, NodeId};
use parking_lot::Mutex;

pub use self::part::MAX_LAYERS;
use self::part::{Number, Part};
use crate::{AttachError, Attributes, Failure, LayerTree, Slot, Totals, ino::Inode};

/// How much memory the parts of merged directories may take in a chain, in bytes. A real image needs some ten thousand.
const REMEMBERED: usize = 512 << 10;

/// See the module.
pub struct Chain {
    /// Uppermost first, with the slots that their inodes are in.
    layers: Vec<(Slot, Arc<dyn LayerTree>)>,
    merged: Mutex<Merged>,
}

/// The parts of directories that more than one layer has, by the directory's number.
#[derive(Default)]
struct Merged {
    parts: HashMap<NodeId, Arc<[Part]>>,
    bytes: usize,
}

/// What a name in a chain stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Child {
    /// A directory of these parts, uppermost first; at least one.
    Dir(Vec<Part>),
    /// Something else, in a layer.
    Other(Slot, NodeId, Kind),
}

/// An entry of a directory in a chain.
pub(crate) struct ChainEntry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) inode: Inode,
    pub(crate) kind: Kind,
    /// Where to go on after this entry; at least 1, and the same in every listing.
    pub(crate) position: u64,
}

// === impl Chain ===

impl Chain {
    /// A chain of these layers, the uppermost first, each with the slot that it is attached in. There are at most
    /// [`MAX_CHAIN`](crate::MAX_CHAIN).
    pub fn new<L: LayerTree>(layers: impl IntoIterator<Item = (Slot, Arc<L>)>) -> Result<Self, AttachError> {
        let layers = layers.into_iter().map(|(slot, layer)| (slot, layer as Arc<dyn LayerTree>));
        let layers: Vec<_> = layers.collect();
        if (1..=MAX_LAYERS).contains(&layers.len()) {
            Ok(Self { layers, merged: Mutex::default() })
        } else {
            Err(AttachError::ChainLength { most: MAX_LAYERS })
        }
    }

    /// Attributes of a directory: those of its uppermost part.
    pub(crate) fn attributes(&self, dir: NodeId) -> Result<Attributes, Failure> {
        let number = Number::read(dir).ok_or(Failure::Stale)?;
        let part = number.part();
        let attributes = self.layer(part)?.attributes(part.node)?;
        if attributes.kind != Kind::Dir {
            return Err(Failure::Stale);
        }
        // One name means "unknown" for a directory, as it does in an overlay: counting would mean listing.
        let nlink = if number == Number::Alone(part) { attributes.nlink } else { 1 };
        Ok(Attributes { nlink, opaque: false, ..attributes })
    }

    /// What stands for `name` in a directory of the chain that is in `slot`.
    pub(crate) fn lookup(&self, slot: Slot, dir: NodeId, name: &[u8]) -> Result<Option<Inode>, Failure> {
        let child = self.child(&self.parts(dir)?, name)?;
        child.map(|child| self.inode(slot, child)).transpose()
    }

    /// The directory that a directory is in; the root is its own.
    pub(crate) fn parent(&self, dir: NodeId) -> Result<NodeId, Failure> {
        let part = Number::read(dir).ok_or(Failure::Stale)?.part();
        let layer = self.layer(part)?;
        let parent = layer.attributes(part.node)?.parent;
        self.number(&self.walk(Part { node: parent, ..part })?)
    }

    /// Shows the entries of a directory, whose chain is in `slot`, after the one at `from`, until `visit` breaks off.
    pub(crate) fn list(
        &self,
        slot: Slot,
        dir: NodeId,
        from: u64,
        visit: &mut dyn FnMut(ChainEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let parts = self.parts(dir)?;
        listing::list(self, &parts, from, &mut |name, child, position| {
            let kind = child.kind();
            let inode = self.inode(slot, child)?;
            Ok(visit(ChainEntry { name, inode, kind, position }))
        })
    }

    /// The uppermost part of a directory, whose extended attributes it has.
    pub(crate) fn uppermost(&self, dir: NodeId) -> Result<(&dyn LayerTree, NodeId), Failure> {
        let part = Number::read(dir).ok_or(Failure::Stale)?.part();
        Ok((self.layer(part)?, part.node))
    }

    /// The size of all layers.
    pub(crate) fn totals(&self) -> Totals {
        self.layers.iter().map(|(_, layer)| layer.totals()).fold(Totals::default(), Totals::plus)
    }

    fn layer(&self, part: Part) -> Result<&dyn LayerTree, Failure> {
        self.layers.get(part.layer).map(|(_, layer)| layer.as_ref()).ok_or(Failure::Stale)
    }

    /// The parts of a directory.
    fn parts(&self, dir: NodeId) -> Result<Arc<[Part]>, Failure> {
        if dir == NodeId::ROOT {
            return Ok(self.root().into());
        }
        match Number::read(dir).ok_or(Failure::Stale)? {
            Number::Alone(part) => Ok([part].into()),
            Number::Merged(part) => {
                if let Some(parts) = self.merged.lock().parts.get(&dir) {
                    return Ok(Arc::clone(parts));
                }
                let parts = self.walk(part)?;
                if parts.first() != Some(&part) || parts.len() < 2 {
                    return Err(Failure::Stale);
                }
                Ok(self.merged.lock().remember(dir, parts))
            }
        }
    }

    /// The parts of the directory that has the path of `part` in its layer.
    fn walk(&self, part: Part) -> Result<Vec<Part>, Failure> {
        let mut parts = self.root();
        let path = self.layer(part)?.path(part.node)?;
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            match parts.as_slice() {
                // Nothing joins any more further down.
                [alone] if alone.layer == part.layer => return Ok(vec![part]),
                _ => {}
            }
            match self.child(&parts, name)? {
                Some(Child::Dir(below)) => parts = below,
                // No number was ever given to a directory that is hidden.
                Some(Child::Other(..)) | None => return Err(Failure::Stale),
            }
        }
        Ok(parts)
    }

    fn root(&self) -> Vec<Part> {
        (0..self.layers.len()).map(|layer| Part { layer, node: NodeId::ROOT }).collect()
    }

    fn child(&self, parts: &[Part], name: &[u8]) -> Result<Option<Child>, Failure> {
        let look = |part: &Part| {
            let node = self.layer(*part)?.lookup(part.node, name)?;
            Ok(node.map(|node| Part { node, ..*part }))
        };
        self.join(parts.iter().map(look).filter_map(Result::transpose))
    }

    /// What the nodes of one name come to, the uppermost first. None is looked at that one above it hides.
    fn join(&self, nodes: impl Iterator<Item = Result<Part, Failure>>) -> Result<Option<Child>, Failure> {
        let mut parts = Vec::new();
        for part in nodes {
            let part = part?;
            let attributes = self.layer(part)?.attributes(part.node)?;
            if attributes.kind != Kind::Dir {
                if parts.is_empty() && !is_whiteout(&attributes) {
                    let slot = self.layers.get(part.layer).map(|(slot, _)| *slot).ok_or(Failure::Stale)?;
                    return Ok(Some(Child::Other(slot, part.node, attributes.kind)));
                }
                break;
            }
            parts.push(part);
            if attributes.opaque {
                break;
            }
        }
        Ok((!parts.is_empty()).then_some(Child::Dir(parts)))
    }

    fn inode(&self, slot: Slot, child: Child) -> Result<Inode, Failure> {
        match child {
            Child::Other(slot, node, _) => Ok(Inode::Layer(slot, node)),
            Child::Dir(parts) => {
                let dir = self.number(&parts)?;
                if parts.len() > 1 {
                    self.merged.lock().remember(dir, parts);
                }
                Ok(Inode::Layer(slot, dir))
            }
        }
    }

    /// The number of the directory with these parts.
    fn number(&self, parts: &[Part]) -> Result<NodeId, Failure> {
        let number = match parts {
            [] => None,
            // The root's number is the same in every slot.
            [part, ..] if part.node == NodeId::ROOT => Some(NodeId::ROOT),
            &[part] => Number::Alone(part).write(),
            &[part, ..] => Number::Merged(part).write(),
        };
        number.ok_or(Failure::Stale)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

// === impl Child ===

impl Child {
    fn kind(&self) -> Kind {
        match self {
            Self::Dir(_) => Kind::Dir,
            Self::Other(_, _, kind) => *kind,
        }
    }
}

// === impl Merged ===

impl Merged {
    fn remember(&mut self, dir: NodeId, parts: Vec<Part>) -> Arc<[Part]> {
        if let Some(parts) = self.parts.get(&dir) {
            return Arc::clone(parts);
        }
        // With the counters before them, and their place in the map.
        let bytes = parts.len() * size_of::<Part>() + 64;
        if self.bytes + bytes > REMEMBERED {
            *self = Self::default();
        }
        self.bytes += bytes;
        let parts = Arc::from(parts);
        self.parts.insert(dir, Arc::clone(&parts));
        parts
    }
}

/// Whether overlayfs takes a node for the mark of a name that is gone: a character device 0:0.
fn is_whiteout(attributes: &Attributes) -> bool {
    attributes.kind == Kind::Char && attributes.rdev == (0, 0)
}
