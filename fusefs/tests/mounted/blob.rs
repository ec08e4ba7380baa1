//! A layer read straight from an eStargz blob in memory, chunk by chunk as it is asked for: the format and the kernel
//! side without the store between them.

use std::{ops::ControlFlow, sync::Arc};

use estargz::{
    Index, NodeId,
    decode::{Inflater, verify},
    footer, toc, write,
};
use fusefs::{Failure, LayerTree, Listed, ReadFuture, Totals};

pub(crate) struct BlobLayer {
    index: Index<Vec<u8>>,
    blob: Vec<u8>,
}

impl BlobLayer {
    /// Makes a blob of a tar archive and opens it as a lazy reader does: footer, TOC, digest.
    pub(crate) fn of_tar(tar: &[u8], options: &write::Options) -> Self {
        let built = write::build(tar, options).unwrap();
        let blob = built.blob;
        let tail = &blob[blob.len().saturating_sub(footer::MAX_LEN)..];
        let footer = footer::parse(tail, blob.len() as u64).unwrap();
        let section = &blob[footer.toc_offset as usize..blob.len() - footer.len as usize];
        let opened = toc::build_index(section, footer.toc_offset, blob.len() as u64).unwrap();
        assert_eq!(opened.toc_digest, built.toc_digest);
        Self { index: Index::parse(opened.index).unwrap(), blob }
    }
}

impl LayerTree for BlobLayer {
    fn attributes(&self, node: NodeId) -> Result<fusefs::Attributes, Failure> {
        Ok(self.index.node(node)?.into())
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>, Failure> {
        Ok(self.index.lookup(dir, name)?)
    }

    fn list(
        &self,
        dir: NodeId,
        from: u64,
        visit: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        for entry in self.index.entries(dir, from)? {
            if visit(entry?.into()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn position_after(&self, dir: NodeId, name: &[u8]) -> Result<u64, Failure> {
        Ok(self.index.position_after(dir, name)?)
    }

    fn path(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        Ok(self.index.path(node)?)
    }

    fn link_target(&self, link: NodeId) -> Result<&[u8], Failure> {
        Ok(self.index.symlink_target(link)?)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<&[u8]>, Failure> {
        Ok(self.index.xattr(node, name)?)
    }

    fn xattr_names(&self, node: NodeId, visit: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        self.index.xattrs(node)?.try_for_each(|xattr| {
            visit(xattr?.0);
            Ok(())
        })
    }

    fn read_cached(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, Failure> {
        let layout = self.index.file(file)?;
        let end = offset + buf.len() as u64;
        let mut inflater = Inflater::new();
        for id in self.index.chunks_of(file, offset..end)? {
            let chunk = self.index.chunk(id)?;
            let member = &self.blob[chunk.member_start as usize..chunk.member_end as usize];
            let bytes = inflater.inflate(member, chunk.inner_offset + chunk.len);
            let bytes = bytes.map_err(|error| Failure::Read(error.into()))?;
            let bytes = &bytes[chunk.inner_offset as usize..];
            verify(bytes, &chunk.digest).map_err(|error| Failure::Read(error.into()))?;
            let at = chunk.content_offset - layout.content_offset;
            let (from, to) = (at.max(offset), (at + chunk.len).min(end));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
        }
        Ok(Some(buf.len()))
    }

    fn read(self: Arc<Self>, _file: NodeId, _offset: u64, _len: usize) -> ReadFuture {
        Box::pin(async { Err(Failure::Read("everything is here".into())) })
    }

    fn totals(&self) -> Totals {
        Totals { nodes: self.index.node_count().into(), bytes: self.index.file_bytes() }
    }

    fn describe(&self) -> String {
        "a blob in memory".into()
    }
}
