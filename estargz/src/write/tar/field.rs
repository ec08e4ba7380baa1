//! The fields of a tar header block, in all dialects.

/// A header block of 512 bytes.
#[derive(Debug, Clone)]
pub(super) struct Block([u8; 512]);

/// What follows the fields that all dialects share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

// === impl Block ===

impl Block {
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    pub(super) fn field(&self, at: usize, len: usize) -> &[u8] {
        self.0.get(at..at + len).unwrap_or_default()
    }

    /// The type flag. A NUL is the old form of `0`.
    pub(super) fn flag(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn size(&self) -> Result<u64, &'static str> {
        unsigned(self.field(124, 12))
    }

    pub(super) fn dialect(&self) -> Dialect {
        match (self.field(257, 6), self.field(263, 2)) {
            (b"ustar\0", _) if self.field(508, 4) == b"tar\0" => Dialect::Star,
            (b"ustar\0", _) => Dialect::Ustar,
            (b"ustar ", b" \0") => Dialect::Gnu,
            _ => Dialect::V7,
        }
    }

    /// Old tars summed signed bytes, so both sums are right.
    pub(super) fn check_sum(&self) -> Result<(), &'static str> {
        let stored = number(self.field(148, 8)).map_err(|_| "its checksum is not a number")?;
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, &byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        if stored == unsigned || stored == signed { Ok(()) } else { Err("its checksum does not match") }
    }
}

/// A text field: up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits between blanks, or base 256 where the first bit is set.
pub(super) fn number(field: &[u8]) -> Result<i64, &'static str> {
    match field.first() {
        Some(&first) if first & 0x80 != 0 => base_256(first, field),
        _ => {
            let digits = text(field).trim_ascii();
            let octal = |value: i64, digit: &u8| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
                _ => None,
            };
            // GNU tar leaves leading NULs in fields that it does not fill.
            let digits = if digits.is_empty() { field.trim_ascii() } else { digits };
            let digits = digits.iter().filter(|&&byte| byte != 0);
            digits.clone().try_fold(0, octal).ok_or("a field is not an octal number")
        }
    }
}

/// As [`number`], for a quantity that cannot be negative.
pub(super) fn unsigned(field: &[u8]) -> Result<u64, &'static str> {
    u64::try_from(number(field)?).map_err(|_| "a field is negative")
}

/// Two's complement, big-endian, below the marker bit.
fn base_256(first: u8, field: &[u8]) -> Result<i64, &'static str> {
    let negative = first & 0x40 != 0;
    let start = if negative { -1 } else { 0 };
    let rest = field.iter().skip(1);
    // The six value bits of the first byte, sign-extended.
    let head = (start << 6) | i64::from(first & 0x3f);
    rest.clone()
        .try_fold(head, |value: i64, &byte| Some(value.checked_mul(256)? | i64::from(byte)))
        .ok_or("a field is out of range")
}

/// `value` as octal digits that fill `field` up to a closing NUL, or `false` if it does not fit.
pub(super) fn octal(value: u64, field: &mut [u8]) -> bool {
    let digits = field.len().saturating_sub(1);
    let mut rest = value;
    for byte in field.iter_mut().take(digits).rev() {
        *byte = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    rest == 0
}
