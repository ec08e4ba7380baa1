//! PAX extended header records: `<length> <key>=<value>\n` (POSIX.1-2017, `pax`, "pax Extended Header").

/// The records of one extended header, in order. A key may come twice (GNU's sparse 0.0 does that);
/// the last value counts.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

// === impl Records ===

impl Records {
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, &'static str> {
        let mut records = Vec::new();
        while !data.is_empty() {
            let (record, rest) = split_record(data)?;
            data = rest;
            let equals =
                record.iter().position(|&byte| byte == b'=').ok_or("an extended record without =")?;
            let (key, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            if key.is_empty() || key.contains(&0) {
                return Err("an extended record with an impossible key");
            }
            if value.contains(&0) && matches!(key, b"path" | b"linkpath" | b"uname" | b"gname") {
                return Err("a name with a NUL byte");
            }
            records.push((key.to_vec(), value.to_vec()));
        }
        Ok(Self(records))
    }

    /// The value of `key`. An empty one means that the header's own field counts.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.0.iter().rev().find(|(name, _)| name == key)?;
        (!found.1.is_empty()).then_some(found.1.as_slice())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// A record that is a whole number.
    pub(super) fn number(&self, key: &[u8]) -> Result<Option<u64>, &'static str> {
        self.get(key).map(decimal).transpose()
    }
}

/// A whole number in decimal digits.
pub(super) fn decimal(text: &[u8]) -> Result<u64, &'static str> {
    let digit = |value: u64, byte: &u8| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    if text.is_empty() {
        return Err("an extended record without its number");
    }
    let number = text.iter().try_fold(0, digit).ok_or("an extended record whose number is none")?;
    // Offsets and sizes are signed 64-bit numbers everywhere else.
    if number > i64::MAX as u64 { Err("an extended record whose number is out of range") } else { Ok(number) }
}

/// Seconds and nanoseconds of a decimal number with an optional fraction; digits past nanoseconds are cut.
pub(super) fn time(text: &[u8]) -> Result<(i64, u32), &'static str> {
    const INVALID: &str = "an extended record whose time is none";
    let (negative, text) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let seconds = decimal(parts.next().unwrap_or_default()).map_err(|_| INVALID)?;
    let seconds = i64::try_from(seconds).map_err(|_| INVALID)?;
    let mut nanoseconds = 0;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(INVALID);
    }
    for at in 0..9 {
        nanoseconds = nanoseconds * 10 + fraction.get(at).map_or(0, |byte| u32::from(byte - b'0'));
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

/// The first record of `data` without its length and line feed, and what follows it.
fn split_record(data: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    const INVALID: &str = "an extended record with a wrong length";
    let space = data.iter().position(|&byte| byte == b' ').ok_or(INVALID)?;
    let (digits, _) = data.split_at(space);
    let len = usize::try_from(decimal(digits).map_err(|_| INVALID)?).map_err(|_| INVALID)?;
    if len > data.len() || len < space + 2 {
        return Err(INVALID);
    }
    let (record, rest) = data.split_at(len);
    match record.get(space + 1..).unwrap_or_default().split_last() {
        Some((b'\n', record)) => Ok((record, rest)),
        _ => Err(INVALID),
    }
}
