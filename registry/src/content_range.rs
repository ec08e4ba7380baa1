//! `Content-Range`, which tells what part of a blob an answer holds.
//!
//! `bytes <first>-<last>/<total or *>` in an answer 206, `bytes */<total>` in an answer 416 (RFC 9110,
//! section 14.4). Anything else is refused: a wrong offset would put right bytes in the wrong place.

/// What an answer says that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentRange {
    /// `first..end` of a blob of `total` bytes, where the server knows the total.
    Satisfied {
        /// Offset of the first byte.
        first: u64,
        /// Offset after the last byte; always more than `first`.
        end: u64,
        /// Length of the whole blob; never less than `end`.
        total: Option<u64>,
    },
    /// The range that was asked for lies outside a blob of `total` bytes.
    Unsatisfied {
        /// Length of the whole blob.
        total: u64,
    },
}

impl ContentRange {
    /// Reads the value of the header; `None` if it is malformed or contradicts itself.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok()?.trim();
        let (unit, rest) = value.split_once(' ')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (range, total) = rest.trim_start().split_once('/')?;
        if range == "*" {
            return Some(Self::Unsatisfied { total: number(total)? });
        }
        let (first, last) = range.split_once('-')?;
        let (first, end) = (number(first)?, number(last)?.checked_add(1)?);
        let total = if total == "*" { None } else { Some(number(total)?) };
        let sound = first < end && total.is_none_or(|total| end <= total);
        sound.then_some(Self::Satisfied { first, end, total })
    }
}

/// A decimal number without sign or space.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_forms_of_the_specification() {
        let satisfied = |first, end, total| Some(ContentRange::Satisfied { first, end, total });
        assert_eq!(ContentRange::parse(b"bytes 0-499/1234"), satisfied(0, 500, Some(1234)));
        assert_eq!(ContentRange::parse(b"Bytes 734-1233/*"), satisfied(734, 1234, None));
        assert_eq!(ContentRange::parse(b"bytes 0-0/1"), satisfied(0, 1, Some(1)));
        assert_eq!(ContentRange::parse(b"bytes */0"), Some(ContentRange::Unsatisfied { total: 0 }));
    }

    #[test]
    fn refuses_what_is_malformed_or_contradicts_itself() {
        let huge = format!("bytes 0-{}/*", u64::MAX);
        let bad: [&[u8]; 14] = [
            b"",
            b"bytes",
            b"bytes=0-1/2",
            b"items 0-1/2",
            b"bytes 1-0/2",
            b"bytes 0-1/1",
            b"bytes 0-1",
            b"bytes -1/2",
            b"bytes 0-/2",
            b"bytes +0-1/2",
            b"bytes 0 - 1/2",
            b"bytes */*",
            b"bytes 0-1/\xff",
            huge.as_bytes(),
        ];
        for value in bad {
            assert_eq!(ContentRange::parse(value), None, "{}", String::from_utf8_lossy(value));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value: Vec<u8>) {
            let _ = ContentRange::parse(&value);
        }

        #[test]
        fn what_is_written_is_read(first in 0..u64::MAX / 2, len in 1..u64::MAX / 4, more in 0..u64::MAX / 4) {
            let (end, total) = (first + len, first + len + more);
            let value = format!("bytes {first}-{}/{total}", end - 1);
            let expected = ContentRange::Satisfied { first, end, total: Some(total) };
            prop_assert_eq!(ContentRange::parse(value.as_bytes()), Some(expected));
        }
    }
}
