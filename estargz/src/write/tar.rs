//! A walk over a tar stream that keeps apart header bytes and payloads.
//!
//! Understands v7, ustar, star, GNU (long names, old sparse) and PAX archives (extended and global headers,
//! GNU's three sparse formats), as POSIX.1-2017 `pax` and the GNU tar manual describe them. Where
//! readers disagree the walk does what containerd's does, because the walked layer must unpack to the same
//! tree there. Nothing is unpacked and no payload is held: a member is described by its places in the stream.

mod emit;
mod field;
mod header;
mod pax;
mod sparse;

use std::io::{self, Read};

pub(super) use emit::header_blocks;
pub(super) use header::{Header, Kind};
pub(super) use sparse::Extent;

use field::Block;
use pax::Records;

/// Tar counts in blocks of this many bytes.
pub(super) const BLOCK: u64 = 512;

/// The longest extended header or GNU long name that is read: ten times what the longest path (4 KiB), the
/// longest link (4 KiB) and a full set of extended attributes (64 KiB of values each) need in practice.
const MAX_EXTENDED: u64 = 1 << 20;

/// Why a tar stream cannot be walked.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream itself failed.
    #[error("cannot read the tar stream at byte {offset}")]
    Read {
        /// Where in the uncompressed stream.
        offset: u64,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The stream ends inside a header or a payload.
    #[error("the tar stream ends at byte {offset}, inside {inside}")]
    Truncated {
        /// Where in the uncompressed stream.
        offset: u64,
        /// What is cut off.
        inside: &'static str,
    },
    /// A header that is not one.
    #[error("invalid tar header at byte {offset}: {what}")]
    Invalid {
        /// Where in the uncompressed stream.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An entry of a type that no layer can hold.
    #[error("tar entry {name:?} has the unsupported type {flag:?}")]
    Unsupported {
        /// The entry.
        name: String,
        /// Its type flag.
        flag: char,
    },
}

/// One member of an archive.
#[derive(Debug)]
pub(super) struct Member {
    /// What its headers say, together.
    pub header: Header,
    /// Where its first header (extended headers included) starts.
    pub start: u64,
    /// Where its payload starts; everything from `start` to here is header blocks.
    pub payload: u64,
    /// How many bytes the payload takes in the stream, without padding; less than the file's size if sparse.
    pub stored: u64,
    /// The stored runs of a sparse file, in order, with places in the stream; `None` for an ordinary file.
    pub sparse: Option<Vec<Extent>>,
}

/// What the walk finds next.
#[derive(Debug)]
pub(super) enum Item {
    /// A member of the archive.
    Member(Box<Member>),
    /// A global extended header: these blocks. Its records are not applied, as containerd does not apply them.
    Global {
        /// Where its header starts.
        start: u64,
        /// Where the next header starts.
        end: u64,
    },
}

/// Walks a tar stream.
#[derive(Debug)]
pub(super) struct Walker<R> {
    reader: R,
    offset: u64,
    /// What is left of the current payload, padding included.
    skip: u64,
    padding: u64,
    done: bool,
}

/// The headers that precede a member's own.
#[derive(Debug, Default)]
struct Extended {
    records: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

// === impl Walker ===

impl<R: Read> Walker<R> {
    /// Starts at the first header.
    pub(super) fn new(reader: R) -> Self {
        Self { reader, offset: 0, skip: 0, padding: 0, done: false }
    }

    /// How much of the stream has been read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next member, or `None` after the last.
    pub(super) fn next_item(&mut self) -> Result<Option<Item>, TarError> {
        if self.done || !self.skip_payload()? {
            return Ok(None);
        }
        let start = self.offset;
        let mut extended = Extended::default();
        loop {
            let Some(block) = self.header_block()? else {
                if self.offset > start && extended.any() {
                    return Err(self.invalid("an extended header without a member"));
                }
                self.done = true;
                return Ok(None);
            };
            match block.flag() {
                b'x' => {
                    extended.records =
                        Some(Records::parse(&self.extended(&block)?).map_err(|what| self.invalid(what))?)
                }
                b'L' => extended.long_name = Some(until_nul(self.extended(&block)?)),
                b'K' => extended.long_link = Some(until_nul(self.extended(&block)?)),
                b'g' if extended.any() => {
                    return Err(self.invalid("a global header after an extended header"));
                }
                b'g' => {
                    self.extended(&block)?;
                    return Ok(Some(Item::Global { start, end: self.offset }));
                }
                _ => {
                    return self
                        .member(start, &block, extended)
                        .map(|member| Some(Item::Member(Box::new(member))));
                }
            }
        }
    }

    fn member(&mut self, start: u64, block: &Block, extended: Extended) -> Result<Member, TarError> {
        let records = extended.records.unwrap_or_default();
        let mut header = Header::parse(block, &records).map_err(|what| self.invalid(what))?;
        if let Some(name) = extended.long_name {
            header.name = name;
        }
        if let Some(link) = extended.long_link {
            header.link_name = link;
        }
        header.kind = header.kind_of(block.flag()).ok_or_else(|| TarError::Unsupported {
            name: String::from_utf8_lossy(&header.name).into_owned(),
            flag: char::from(block.flag()),
        })?;
        if header.kind != Kind::Regular {
            header.size = 0;
        }
        let mut member = Member { start, payload: self.offset, stored: header.size, sparse: None, header };
        if member.header.kind == Kind::Regular {
            self.open_sparse(&mut member, block, &records)?;
        }
        // Counted from the payload, of which a sparse map may already have been read.
        let read = self.offset - member.payload;
        self.skip = member
            .stored
            .checked_sub(read)
            .ok_or_else(|| self.invalid("a sparse map longer than its member"))?;
        self.padding = padding(member.stored);
        Ok(member)
    }

    /// Finds out whether the member is sparse, and where its runs are.
    fn open_sparse(&mut self, member: &mut Member, block: &Block, records: &Records) -> Result<(), TarError> {
        let stored = member.stored;
        let map = if block.flag() == b'S' {
            // The map goes on in extension blocks, which come before the payload.
            let mut map = sparse::old_gnu(block).map_err(|what| self.invalid(what))?;
            while map.more {
                let next = self.block()?.ok_or_else(|| self.truncated("a sparse map"))?;
                map.extend(&next).map_err(|what| self.invalid(what))?;
            }
            member.payload = self.offset;
            Some((map.runs, self.offset))
        } else if let Some(runs) = sparse::pax(records).map_err(|what| self.invalid(what))? {
            Some((runs, self.offset))
        } else if sparse::is_version_1(records) {
            let mut reader = sparse::Version1::default();
            while !reader.done() {
                if self.offset - member.payload + BLOCK > stored {
                    return Err(self.invalid("a sparse map longer than its member"));
                }
                let next = self.block()?.ok_or_else(|| self.truncated("a sparse map"))?;
                reader.push(next.bytes()).map_err(|what| self.invalid(what))?;
            }
            Some((reader.runs(), self.offset))
        } else {
            None
        };
        if let Some((runs, data)) = map {
            let size = sparse::real_size(block, records).map_err(|what| self.invalid(what))?;
            let available = member.payload + stored - data;
            member.header.size = size;
            if let Some(name) = sparse::real_name(records) {
                member.header.name = name.to_vec();
            }
            member.sparse =
                Some(sparse::place(&runs, data, available, size).map_err(|what| self.invalid(what))?);
        }
        Ok(())
    }

    /// The next header, checked; `None` at the end of the archive.
    fn header_block(&mut self) -> Result<Option<Block>, TarError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if !block.is_zero() {
            block.check_sum().map_err(|what| self.invalid(what))?;
            return Ok(Some(block));
        }
        // Two zero blocks end an archive; one is the end too when nothing follows it.
        match self.block()? {
            Some(second) if !second.is_zero() => Err(self.invalid("a zero block between two members")),
            _ => Ok(None),
        }
    }

    fn extended(&mut self, block: &Block) -> Result<Vec<u8>, TarError> {
        let size = block.size().map_err(|what| self.invalid(what))?;
        if size > MAX_EXTENDED {
            return Err(self.invalid("an extended header of more than 1 MiB"));
        }
        let mut data = Vec::new();
        let whole = size + padding(size);
        self.read_up_to(whole, &mut data)?;
        if (data.len() as u64) < whole {
            return Err(self.truncated("an extended header"));
        }
        data.truncate(size as usize);
        Ok(data)
    }

    /// One block, or `None` when the stream ends where a block would start.
    fn block(&mut self) -> Result<Option<Block>, TarError> {
        let mut data = Vec::with_capacity(BLOCK as usize);
        self.read_up_to(BLOCK, &mut data)?;
        match Block::new(&data) {
            Some(block) => Ok(Some(block)),
            None if data.is_empty() => Ok(None),
            None => Err(self.truncated("a header")),
        }
    }

    fn read_up_to(&mut self, len: u64, data: &mut Vec<u8>) -> Result<(), TarError> {
        let offset = self.offset;
        let read = (&mut self.reader).take(len).read_to_end(data);
        let read = read.map_err(|source| TarError::Read { offset, source })?;
        self.offset += read as u64;
        Ok(())
    }

    /// Goes to where the next header should be; `false` if the stream ends before that, in the padding.
    fn skip_payload(&mut self) -> Result<bool, TarError> {
        let skip = std::mem::take(&mut self.skip);
        if self.discard(skip)? < skip {
            return Err(self.truncated("the payload of a member"));
        }
        let padding = std::mem::take(&mut self.padding);
        Ok(self.discard(padding)? == padding)
    }

    fn discard(&mut self, len: u64) -> Result<u64, TarError> {
        let offset = self.offset;
        let mut source = (&mut self.reader).take(len);
        let read =
            io::copy(&mut source, &mut io::sink()).map_err(|source| TarError::Read { offset, source })?;
        self.offset += read;
        Ok(read)
    }

    fn invalid(&self, what: &'static str) -> TarError {
        TarError::Invalid { offset: self.offset, what }
    }

    fn truncated(&self, inside: &'static str) -> TarError {
        TarError::Truncated { offset: self.offset, inside }
    }
}

// === impl Member ===

impl Member {
    /// Bytes of the file that the stream does not have.
    pub(crate) fn holes(&self) -> u64 {
        let runs = self.sparse.iter().flatten().map(|extent| extent.len);
        if self.sparse.is_some() { self.header.size - runs.sum::<u64>() } else { 0 }
    }
}

// === impl Extended ===

impl Extended {
    fn any(&self) -> bool {
        self.records.is_some() || self.long_name.is_some() || self.long_link.is_some()
    }
}

/// How many bytes fill the last block of a payload of `len` bytes.
pub(super) fn padding(len: u64) -> u64 {
    len.wrapping_neg() % BLOCK
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|&byte| byte == 0) {
        data.truncate(end);
    }
    data
}

#[cfg(test)]
mod tests;
