//! Go's string escapes, in quotes that may also be `/` or `|` (`pkg/filters/quote.go`).

/// The text that `quoted` stands for. Its first and last characters are the quotes, and the scanner has checked the
/// shape of the escapes.
pub(super) fn unquote(quoted: &str) -> Result<String, &'static str> {
    const BAD: &str = "quote syntax error";
    let quote = quoted.chars().next().ok_or(BAD)?;
    let inner = quoted.get(1..quoted.len() - 1).ok_or(BAD)?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            push(&mut bytes, c);
            continue;
        }
        match rest.next().ok_or(BAD)? {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            't' => bytes.push(b'\t'),
            'n' => bytes.push(b'\n'),
            'v' => bytes.push(11),
            'f' => bytes.push(12),
            'r' => bytes.push(b'\r'),
            '\\' => bytes.push(b'\\'),
            c if c == quote => push(&mut bytes, c),
            c @ '0'..='7' => {
                let value = number(&mut rest, 8, 2).zip(c.to_digit(8)).map(|(low, high)| high << 6 | low);
                bytes.push(value.and_then(|value| u8::try_from(value).ok()).ok_or(BAD)?);
            }
            'x' => {
                let value = number(&mut rest, 16, 2).and_then(|value| u8::try_from(value).ok());
                bytes.push(value.ok_or(BAD)?);
            }
            'u' => push(&mut bytes, rune(number(&mut rest, 16, 4).ok_or(BAD)?).ok_or(BAD)?),
            'U' => push(&mut bytes, rune(number(&mut rest, 16, 8).ok_or(BAD)?).ok_or(BAD)?),
            _ => return Err(BAD),
        }
    }
    String::from_utf8(bytes).map_err(|_| "quoted text is not UTF-8")
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn number(digits: &mut std::str::Chars<'_>, radix: u32, count: usize) -> Option<u32> {
    (0..count).try_fold(0u32, |value, _| {
        let digit = digits.next()?.to_digit(radix)?;
        value.checked_mul(radix)?.checked_add(digit)
    })
}

/// Go writes U+FFFD for surrogates and refuses what is above Unicode.
fn rune(value: u32) -> Option<char> {
    (value <= u32::from(char::MAX)).then(|| char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER))
}
