//! Durations as Go writes them: `1h30m`, `1.5h`, `300ms`, `0`.

use std::time::Duration;

/// Longer ones are taken for this: no credential is kept for longer.
const LONGEST: f64 = 30.0 * 24.0 * 3600.0;

/// Reads a duration that is not negative.
pub(super) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text.strip_prefix('+').unwrap_or(text), 0.0_f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) =
            after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        seconds += number.parse::<f64>().ok()? * unit_seconds(unit)?;
        rest = after;
    }
    Some(Duration::from_secs_f64(seconds.min(LONGEST)))
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_writes_and_refuses_the_rest() {
        for (text, milliseconds) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("12h", Some(12 * 3_600_000)),
            ("12h0m0s", Some(12 * 3_600_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5h", Some(5_400_000)),
            (".5s", Some(500)),
            ("300ms", Some(300)),
            ("1s500ms", Some(1500)),
            ("99999999h", Some(30 * 24 * 3_600_000)),
            ("", None),
            ("-1h", None),
            ("5", None),
            ("h", None),
            ("1d", None),
            ("1.2.3s", None),
            ("1h ", None),
        ] {
            assert_eq!(parse(text).map(|read| read.as_millis()), milliseconds, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9.hmsnuµ+ -]{0,20}") {
            parse(&text);
        }
    }
}
