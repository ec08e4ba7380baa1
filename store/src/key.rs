//! The name of a layer: both the blob digest and the TOC digest.
//!
//! Both, since a lazy read never sees the whole blob: an image that names an honest blob with a TOC of its own must
//! not fill the layer that another image uses.

use std::fmt;

use estargz::Digest;

/// What a layer's files are kept under. Its text form is a short name for its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerKey {
    /// Digest of the compressed blob, from the image's manifest.
    pub blob: Digest,
    /// Digest of the uncompressed TOC, from the image's manifest.
    pub toc: Digest,
}

// === impl LayerKey ===

impl fmt::Display for LayerKey {
    /// 32 hexadecimal digits of the digest of both: 128 bits are out of reach of a deliberate collision.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = Digest::of(&[*self.blob.as_bytes(), *self.toc.as_bytes()].concat());
        f.write_str(both.hex().get(..32).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_name_depends_on_both_digests() {
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let names = [(a, a), (a, b), (b, a)].map(|(blob, toc)| LayerKey { blob, toc }.to_string());
        assert!(names.iter().all(|name| name.len() == 32));
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
    }
}
