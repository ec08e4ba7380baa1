//! What is in a slot: a layer, or a chain of layers merged.
//!
//! Both are directories of nodes to the rest of the server. Only layers have files: what a chain shows that is not a
//! directory is an inode of a layer.

use std::{ops::ControlFlow, sync::Arc};

use estargz::NodeId;

use crate::{
    Attributes, Failure, LayerTree, Slot, Totals,
    chain::{Chain, ChainEntry},
    ino::Inode,
};

/// See the module.
#[derive(Clone)]
pub(crate) enum Shown {
    Layer(Arc<dyn LayerTree>),
    Chain(Arc<Chain>),
}

// === impl Shown ===

impl Shown {
    /// The layer, for what only layers have.
    pub(crate) fn layer(&self) -> Result<&Arc<dyn LayerTree>, Failure> {
        match self {
            Self::Layer(layer) => Ok(layer),
            Self::Chain(_) => Err(Failure::Stale),
        }
    }

    /// Attributes of a node, but for the parent: [`Self::parent`].
    pub(crate) fn attributes(&self, node: NodeId) -> Result<Attributes, Failure> {
        match self {
            Self::Layer(layer) => layer.attributes(node),
            Self::Chain(chain) => chain.attributes(node),
        }
    }

    /// The directory that a directory is in; the root is its own.
    pub(crate) fn parent(&self, dir: NodeId) -> Result<NodeId, Failure> {
        match self {
            Self::Layer(layer) => Ok(layer.attributes(dir)?.parent),
            Self::Chain(chain) => chain.parent(dir),
        }
    }

    /// What stands for `name` in a directory of what is in `slot`.
    pub(crate) fn lookup(&self, slot: Slot, dir: NodeId, name: &[u8]) -> Result<Option<Inode>, Failure> {
        match self {
            Self::Layer(layer) => Ok(layer.lookup(dir, name)?.map(|node| Inode::Layer(slot, node))),
            Self::Chain(chain) => chain.lookup(slot, dir, name),
        }
    }

    /// Shows the entries of a directory of what is in `slot`, after the one at `from`, until `visit` breaks off.
    pub(crate) fn list(
        &self,
        slot: Slot,
        dir: NodeId,
        from: u64,
        visit: &mut dyn FnMut(ChainEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        match self {
            Self::Layer(layer) => layer.list(dir, from, &mut |entry| {
                let inode = Inode::Layer(slot, entry.node);
                visit(ChainEntry { name: entry.name, inode, kind: entry.kind, position: entry.position })
            }),
            Self::Chain(chain) => chain.list(slot, dir, from, visit),
        }
    }

    /// The node of a layer that has the extended attributes of `node`.
    pub(crate) fn bearer(&self, node: NodeId) -> Result<(&dyn LayerTree, NodeId), Failure> {
        match self {
            Self::Layer(layer) => Ok((layer.as_ref(), node)),
            Self::Chain(chain) => chain.uppermost(node),
        }
    }

    /// Whether overlayfs must be told that a directory hides what is below it.
    pub(crate) fn is_opaque(&self, node: NodeId) -> Result<bool, Failure> {
        Ok(self.attributes(node)?.opaque)
    }

    /// Size of all that is shown.
    pub(crate) fn totals(&self) -> Totals {
        match self {
            Self::Layer(layer) => layer.totals(),
            Self::Chain(chain) => chain.totals(),
        }
    }
}
