//! The `toc` file: the verified TOC as it is in the blob, compressed, and what is needed to build the index again.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};

use estargz::{Digest, toc};

use crate::LayerKey;

const MAGIC: &[u8; 8] = b"starltoc";
const VERSION: u32 = 1;
/// Magic, version, 4 bytes of nothing, both digests, size of the blob, offset of the TOC.
const HEADER_LEN: usize = 96;

/// What a `toc` file starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TocHeader {
    pub(crate) key: LayerKey,
    pub(crate) blob_size: u64,
    pub(crate) toc_offset: u64,
}

// === impl TocHeader ===

impl TocHeader {
    pub(crate) fn write(&self, file: &mut impl Write) -> io::Result<()> {
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.write_all(&[0; 4])?;
        file.write_all(self.key.blob.as_bytes())?;
        file.write_all(self.key.toc.as_bytes())?;
        file.write_all(&self.blob_size.to_le_bytes())?;
        file.write_all(&self.toc_offset.to_le_bytes())
    }

    /// Reads the header; None if the file is of another form.
    pub(crate) fn read(file: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER_LEN];
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        Ok(Self::parse(&header))
    }

    fn parse(header: &[u8; HEADER_LEN]) -> Option<Self> {
        let (magic, rest) = header.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_first_chunk::<4>()?;
        let (blob, rest) = rest.split_first_chunk::<32>()?;
        let (toc, rest) = rest.split_first_chunk::<32>()?;
        let (blob_size, rest) = rest.split_first_chunk::<8>()?;
        let toc_offset = rest.first_chunk::<8>()?;
        (magic == MAGIC && u32::from_le_bytes(*version) == VERSION).then(|| Self {
            key: LayerKey { blob: Digest::from_bytes(*blob), toc: Digest::from_bytes(*toc) },
            blob_size: u64::from_le_bytes(*blob_size),
            toc_offset: u64::from_le_bytes(*toc_offset),
        })
    }

    /// Builds the index from the TOC in `file`. Whether its digest is the right one is for the caller to see.
    pub(crate) fn build_index(&self, file: &mut File) -> Result<toc::Built, toc::TocError> {
        file.seek(SeekFrom::Start(HEADER_LEN as u64)).map_err(toc::TocError::Read)?;
        toc::build_index(file, self.toc_offset, self.blob_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote_and_nothing_else() {
        let key = LayerKey { blob: Digest::of(b"blob"), toc: Digest::of(b"toc") };
        let header = TocHeader { key, blob_size: 1000, toc_offset: 900 };
        let mut file = Vec::new();
        header.write(&mut file).unwrap();
        assert_eq!(file.len(), HEADER_LEN);
        assert_eq!(TocHeader::read(&mut file.as_slice()).unwrap(), Some(header));
        assert_eq!(TocHeader::read(&mut &file[..95]).unwrap(), None);
        file[0] = 0;
        assert_eq!(TocHeader::read(&mut file.as_slice()).unwrap(), None);
    }
}
