//! A layer of the store as a [`LayerTree`].

use std::{ops::ControlFlow, sync::Arc};

use estargz::NodeId;
use store::{Layer, ReadError};

use super::{Attributes, LayerTree, Listed, ReadFuture, Totals};
use crate::Failure;

impl LayerTree for Layer {
    fn attributes(&self, node: NodeId) -> Result<Attributes, Failure> {
        Ok(self.index().node(node)?.into())
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>, Failure> {
        Ok(self.index().lookup(dir, name)?)
    }

    fn list(
        &self,
        dir: NodeId,
        from: u64,
        visit: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        for entry in self.index().entries(dir, from)? {
            if visit(entry?.into()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn position_after(&self, dir: NodeId, name: &[u8]) -> Result<u64, Failure> {
        Ok(self.index().position_after(dir, name)?)
    }

    fn path(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        Ok(self.index().path(node)?)
    }

    fn link_target(&self, link: NodeId) -> Result<&[u8], Failure> {
        Ok(self.index().symlink_target(link)?)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<&[u8]>, Failure> {
        Ok(self.index().xattr(node, name)?)
    }

    fn xattr_names(&self, node: NodeId, visit: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        for xattr in self.index().xattrs(node)? {
            let (name, _) = xattr?;
            visit(name);
        }
        Ok(())
    }

    fn read_cached(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, Failure> {
        Ok(Self::read_cached(self, file, offset, buf)?)
    }

    fn read(self: Arc<Self>, file: NodeId, offset: u64, len: usize) -> ReadFuture {
        Box::pin(async move { Ok(Self::read(&self, file, offset, len).await?) })
    }

    fn totals(&self) -> Totals {
        Totals { nodes: self.index().node_count().into(), bytes: self.index().file_bytes() }
    }

    fn describe(&self) -> String {
        self.key().to_string()
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Index(error) => Self::Index(error),
            error => Self::Read(error.into()),
        }
    }
}
