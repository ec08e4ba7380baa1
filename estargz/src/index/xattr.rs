//! Extended attributes.

use super::{Index, IndexError, NodeId, layout::XattrRecord, run};

/// An extended attribute: its name and its value.
pub type Xattr<'a> = (&'a [u8], &'a [u8]);

/// The attributes of a node, in the order of their names.
#[derive(Debug)]
pub struct Xattrs<'a, B> {
    index: &'a Index<B>,
    records: std::slice::Iter<'a, XattrRecord>,
}

impl<B: AsRef<[u8]>> Index<B> {
    /// The extended attributes that the image gave the node. Never `trusted.*`, never overlayfs' own: whether
    /// a directory is opaque is told by [`super::Node::is_opaque`].
    pub fn xattrs(&self, id: NodeId) -> Result<Xattrs<'_, B>, IndexError> {
        Ok(Xattrs { index: self, records: self.xattrs_of(id)?.iter() })
    }

    /// The value of the attribute `name` of the node.
    pub fn xattr(&self, id: NodeId, name: &[u8]) -> Result<Option<&[u8]>, IndexError> {
        // Nodes have a handful of attributes: a search in order beats a binary one.
        for record in self.xattrs_of(id)? {
            if self.xattr_name(record)? == name {
                return self.xattr_value(record).map(Some);
            }
        }
        Ok(None)
    }

    fn xattrs_of(&self, id: NodeId) -> Result<&[XattrRecord], IndexError> {
        let node = self.node(id)?.record();
        run(self.xattr_records(), node.xattr_first, node.xattr_count.get() as usize)
            .ok_or(IndexError::Damaged { what: "attributes are outside of their table" })
    }

    fn xattr_name(&self, record: &XattrRecord) -> Result<&[u8], IndexError> {
        self.string(record.name, record.name_len.get() as usize)
    }

    fn xattr_value(&self, record: &XattrRecord) -> Result<&[u8], IndexError> {
        self.string(record.value, record.value_len.get() as usize)
    }
}

impl<'a, B: AsRef<[u8]>> Iterator for Xattrs<'a, B> {
    type Item = Result<Xattr<'a>, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.records.next()?;
        Some(self.index.xattr_name(record).and_then(|name| Ok((name, self.index.xattr_value(record)?))))
    }
}
