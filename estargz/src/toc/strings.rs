//! The strings of a TOC while it is read: names, targets and attributes, one behind the other.

use super::TocError;
use crate::limits;

/// Bounded growing bytes. Places in it have 32 bits.
#[derive(Debug, Default)]
pub(super) struct Strings(Vec<u8>);

impl Strings {
    /// Adds a string and tells its place.
    pub(super) fn add(&mut self, string: &[u8]) -> Result<u32, TocError> {
        let place = self.0.len();
        if place + string.len() > limits::STRINGS_LEN {
            return Err(TocError::TooMuch { what: "bytes of names", limit: limits::STRINGS_LEN as u64 });
        }
        self.0.extend_from_slice(string);
        Ok(place as u32)
    }

    /// The string of `len` bytes at `place`, which [`Self::add`] told.
    pub(super) fn get(&self, place: u32, len: usize) -> &[u8] {
        let place = place as usize;
        self.0.get(place..place + len).unwrap_or_default()
    }
}
