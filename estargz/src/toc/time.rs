//! Times as a TOC writes them: RFC 3339.

const SECONDS_PER_DAY: i64 = 86_400;

/// Seconds since 1970 and nanoseconds, of a text such as `2024-02-29T12:30:00Z` or
/// `2024-02-29T12:30:00.5+02:00`. None if it is not RFC 3339.
pub(super) fn parse(text: &str) -> Option<(i64, u32)> {
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, rest) = rest.strip_prefix(['T', 't'])?.split_at_checked(8)?;
    let [b'0'..=b'9', .., b'0'..=b'9'] = date.as_bytes() else { return None };
    let year = number(date.get(..4)?)?;
    let month = number(date.get(4..)?.strip_prefix('-')?.get(..2)?)?;
    let day = number(date.get(7..)?.strip_prefix('-')?)?;
    let (hour, minute) = hours_and_minutes(clock.get(..5)?)?;
    let second = number(clock.get(5..)?.strip_prefix(':')?)?;
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) || second > 60 {
        return None;
    }
    let (nanos, zone) = match rest.strip_prefix('.') {
        Some(rest) => fraction(rest)?,
        None => (0, rest),
    };
    let offset = offset(zone)?;
    let seconds =
        days_since_1970(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second.min(59);
    Some((seconds - offset, nanos))
}

fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn hours_and_minutes(text: &str) -> Option<(i64, i64)> {
    let (hour, minute) = text.split_once(':')?;
    if hour.len() != 2 || minute.len() != 2 {
        return None;
    }
    let (hour, minute) = (number(hour)?, number(minute)?);
    (hour < 24 && minute < 60).then_some((hour, minute))
}

/// Nanoseconds, and what follows the digits.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at_checked(len)?;
    if digits.is_empty() {
        return None;
    }
    let nanos = digits
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Some((nanos, rest))
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = hours_and_minutes(zone.strip_prefix(['+', '-'])?)?;
    Some(sign * (hours * 3600 + minutes * 60))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days of the Gregorian calendar, with years that start in March so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", (0, 0)),
            ("1969-12-31T23:59:59Z", (-1, 0)),
            ("2024-02-29T12:30:05Z", (1_709_209_805, 0)),
            ("2024-02-29T12:30:05.25Z", (1_709_209_805, 250_000_000)),
            ("2024-02-29t14:30:05+02:00", (1_709_209_805, 0)),
            ("2024-02-29T07:00:05-05:30", (1_709_209_805, 0)),
            ("0000-01-01T00:00:00Z", (-62_167_219_200, 0)),
            ("0001-01-01T00:00:00Z", (-62_135_596_800, 0)),
            ("9999-12-31T23:59:59.999999999Z", (253_402_300_799, 999_999_999)),
            ("1990-12-31T23:59:60Z", (662_687_999, 0)),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_rfc_3339() {
        for text in [
            "",
            "2024",
            "2024-02-29",
            "2024-02-29T12:30:05",
            "2023-02-29T12:30:05Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-00T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:61Z",
            "2024-01-01 00:00:00Z",
            "+024-01-01T00:00:00Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01T00:00:00Z ",
            "2024-01-0éT00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_is_one_later_than_the_one_before() {
        let mut expected = parse("1599-12-31T01:02:03Z").unwrap().0;
        for year in 1600..2401 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    expected += SECONDS_PER_DAY;
                    assert_eq!(parse(&format!("{year}-{month:02}-{day:02}T01:02:03Z")), Some((expected, 0)));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-+:.TZ0-9é]{0,40}") {
            let _ = parse(&text);
        }
    }
}
