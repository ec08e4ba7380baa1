//! Extended attributes: those of the image, and the mark of opaque directories.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use fuser::ReplyXattr;

use super::{Server, Shared, present};
use crate::{Failure, OpaqueForm, ino::Inode};

/// Prefix of the attributes that the kernel shows to privileged processes only.
const TRUSTED: &[u8] = b"trusted.";

// === impl Server ===

impl Server {
    /// Calls `answer` with the value of an attribute.
    pub(super) fn xattr<T>(
        &self,
        inode: Inode,
        name: &OsStr,
        answer: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Failure> {
        let Inode::Layer(slot, node) = inode else { return Err(Failure::NoSuchAttribute) };
        let layers = self.shared.layers.now();
        let shown = layers.shown(slot)?;
        if name == self.shared.options.opaque.attribute() {
            return if shown.is_opaque(node)? {
                Ok(answer(OpaqueForm::VALUE))
            } else {
                Err(Failure::NoSuchAttribute)
            };
        }
        let (layer, node) = shown.bearer(node)?;
        layer.xattr(node, name.as_bytes())?.map(answer).ok_or(Failure::NoSuchAttribute)
    }

    /// The names of all attributes, each with a NUL after it.
    pub(super) fn xattr_names(&self, inode: Inode, privileged: bool) -> Result<Vec<u8>, Failure> {
        let mut names = Vec::new();
        let Inode::Layer(slot, node) = inode else { return Ok(names) };
        let layers = self.shared.layers.now();
        let shown = layers.shown(slot)?;
        let mut add = |name: &[u8]| {
            if privileged || !name.starts_with(TRUSTED) {
                names.extend_from_slice(name);
                names.push(0);
            }
        };
        let (layer, bearer) = shown.bearer(node)?;
        layer.xattr_names(bearer, &mut add)?;
        if shown.is_opaque(node)? {
            add(self.shared.options.opaque.attribute().as_bytes());
        }
        Ok(names)
    }
}

// === impl Shared ===

impl Shared {
    /// Answers with the length for a buffer of size 0, with the value if it fits.
    pub(super) fn answer_sized(&self, size: u32, value: &[u8], reply: ReplyXattr) {
        match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&present(value)),
            _ => reply.error(self.errno(&Failure::BufferTooSmall)),
        }
    }
}
