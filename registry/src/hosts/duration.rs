//! Durations as Go writes them: `1m30s`, `1.5h`, `300ms`.

use std::time::Duration;

/// Units and their nanoseconds; both characters that Unicode has for the micro sign are common.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration (Go's `time.ParseDuration`); `None` if it is none. What is below zero has passed already, which for
/// a time-out is the shortest time there is.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (name, after) = after.split_at_checked(unit)?;
        let (_, nanoseconds) = UNITS.iter().find(|(known, _)| *known == name)?;
        let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
        total =
            total.checked_add(whole.checked_mul(*nanoseconds)?)?.checked_add(part(fraction, *nanoseconds))?;
        rest = after;
    }
    // Go counts in signed nanoseconds.
    i64::try_from(total).ok()?;
    Some(if negative && total > 0 { Duration::from_nanos(1) } else { Duration::from_nanos(total) })
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// The digits after a point, in nanoseconds; those beyond the eighteenth make no difference.
fn part(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u128, 1_u128);
    for digit in digits.bytes().take(18) {
        value = value * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    // Less than one unit, which fits.
    u64::try_from(value * u128::from(unit) / scale).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("+0", 0),
            ("3s", 3_000_000_000),
            ("+3s", 3_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("100ms", 100_000_000),
            ("1us2\u{b5}s3\u{3bc}s", 6_000),
            ("0.3333333333333333333h", 1_200_000_000_000 - 1),
            ("-5s", 1),
            ("-0s", 0),
        ] {
            let read = parse(text).map(|duration| duration.as_nanos());
            let close = read.is_some_and(|read| read.abs_diff(nanoseconds) <= 1);
            assert!(close, "{text}: {read:?}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in [
            "",
            "3",
            "-",
            "+",
            "s",
            ".s",
            "3 s",
            "3S",
            "1.2.3s",
            "3x",
            "9223372037s",
            "1e3s",
            "\u{e9}",
            "3\u{b5}",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
