//! How long the target of a redirect can be used.
//!
//! Registries send blob requests on to signed URLs of a storage service; the signature's end is in the
//! query: `X-Amz-Date` + `X-Amz-Expires` (AWS signature 4), `X-Goog-*` (the same from Google), `se`
//! (Azure shared access signature), `Expires` (AWS signature 2, CloudFront and Google's older form). What
//! matters is the time left by the signer's clock, so the answer's `Date` is taken as the present where it
//! is given. This is an optimisation: a target that is refused before its time is refreshed anyway.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, header};
use url::Url;

/// No target is kept longer, whatever its query claims.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// A target is given up this much before its end, so that a request on its way does not arrive late.
const MARGIN: Duration = Duration::from_secs(10);

/// How long `target` may be used, counted from now, less a margin; `default` where nothing tells. Zero
/// means: for this request only. `headers` are those of the redirect, `now` the local clock.
pub(crate) fn lifetime(target: &Url, headers: &HeaderMap, now: SystemTime, default: Duration) -> Duration {
    let now = date(headers).unwrap_or(now);
    let left = match signature_end(target) {
        Some(end) => end.duration_since(now).unwrap_or_default(),
        None => cache_control(headers).unwrap_or(default),
    };
    let left = left.min(MAX_LIFETIME);
    left - MARGIN.min(left / 5)
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()
}

/// `no-store` and `max-age=N` of the redirect itself.
fn cache_control(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::CACHE_CONTROL)?.to_str().ok()?;
    value.split(',').map(str::trim).find_map(|directive| {
        if directive.eq_ignore_ascii_case("no-store") {
            return Some(Duration::ZERO);
        }
        let (name, seconds) = directive.split_once('=')?;
        let seconds = seconds.trim_matches('"').parse().ok()?;
        name.eq_ignore_ascii_case("max-age").then(|| Duration::from_secs(seconds))
    })
}

/// When the signature in the query ends; the earliest if there are several.
fn signature_end(target: &Url) -> Option<SystemTime> {
    let (mut date, mut seconds, mut ends) = (None, None, Vec::new());
    for (name, value) in target.query_pairs() {
        match name.to_ascii_lowercase().as_str() {
            "x-amz-date" | "x-goog-date" => date = timestamp(&value),
            "x-amz-expires" | "x-goog-expires" => seconds = value.parse::<u32>().ok(),
            "se" => ends.extend(timestamp(&value)),
            "expires" => ends.extend(value.parse().ok().and_then(after_epoch)),
            _ => {}
        }
    }
    if let (Some(date), Some(seconds)) = (date, seconds) {
        ends.extend(date.checked_add(Duration::from_secs(seconds.into())));
    }
    ends.into_iter().min()
}

fn after_epoch(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// ISO 8601 in UTC, basic (`20261121T060000Z`) or extended, to the minute, second or fraction, or only
/// the day.
fn timestamp(text: &str) -> Option<SystemTime> {
    let text = text.split_once('.').map_or(text, |(whole, _)| whole);
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | ':' | 'T' | 'Z' | ' ')).collect();
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 8 | 12 | 14) {
        return None;
    }
    let field =
        |from: usize, to: usize| digits.get(from..to).map_or(Some(0), |part| part.parse::<i64>().ok());
    let (year, month, day) = (field(0, 4)?, field(4, 6)?, field(6, 8)?);
    let (hour, minute, second) = (field(8, 10)?, field(10, 12)?, field(12, 14)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    after_epoch(u64::try_from(seconds).ok()?)
}

/// Days from 1970-01-01 in the Gregorian calendar, counting years from March so that a leap day is last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const DEFAULT: Duration = Duration::from_secs(300);

    fn left(query: &str, headers: &[(header::HeaderName, &str)]) -> u64 {
        let url = Url::parse(&format!("https://storage.example.com/blob?{query}")).unwrap();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        // 2026-11-21T06:00:00Z
        lifetime(&url, &headers, after_epoch(1_795_240_800).unwrap(), DEFAULT).as_secs()
    }

    #[test]
    fn reads_the_end_of_every_kind_of_signature() {
        assert_eq!(left("X-Amz-Date=20261121T060000Z&X-Amz-Expires=1200&X-Amz-Signature=s", &[]), 1190);
        assert_eq!(left("X-Goog-Date=20261121T055900Z&X-Goog-Expires=600", &[]), 530);
        assert_eq!(left("sv=2020&se=2026-11-21T06%3A20%3A00Z&sig=s", &[]), 1190);
        assert_eq!(left("se=2026-11-22", &[]), 18 * 3600 - 10);
        assert_eq!(left("se=2026-11-21T06%3A20Z", &[]), 1190);
        assert_eq!(left("Expires=1795241400&Signature=s&Key-Pair-Id=k", &[]), 590);
        assert_eq!(left("expires=1795240801", &[]), 0);
        assert_eq!(left("Expires=99999999999", &[]), MAX_LIFETIME.as_secs() - 10);
    }

    #[test]
    fn an_end_in_the_past_means_this_request_only() {
        assert_eq!(left("X-Amz-Date=20261121T050000Z&X-Amz-Expires=60", &[]), 0);
    }

    #[test]
    fn the_signers_clock_counts() {
        let skewed = [(header::DATE, "Sat, 21 Nov 2026 05:00:00 GMT")];
        assert_eq!(left("X-Amz-Date=20261121T050000Z&X-Amz-Expires=60", &skewed), 50);
    }

    #[test]
    fn without_a_signature_the_redirect_tells_or_the_default_holds() {
        assert_eq!(left("", &[]), 290);
        assert_eq!(left("token=x", &[(header::CACHE_CONTROL, "private, max-age=100")]), 90);
        assert_eq!(left("", &[(header::CACHE_CONTROL, "no-store")]), 0);
        assert_eq!(left("se=soon&Expires=-1&X-Amz-Date=x&X-Amz-Expires=60", &[]), 290);
    }

    #[test]
    fn calendar_days_are_counted_right() {
        assert_eq!(days_since_epoch(1970, 1, 1), 0);
        assert_eq!(days_since_epoch(2000, 2, 29), 11_016);
        assert_eq!(days_since_epoch(2000, 3, 1), 11_017);
        assert_eq!(days_since_epoch(2026, 11, 21), 20_778);
    }

    proptest! {
        #[test]
        fn agrees_with_another_calendar(seconds in 0_u64..253_402_300_799) {
            let text = httpdate::fmt_http_date(after_epoch(seconds).unwrap());
            let words: Vec<&str> = text.split(' ').collect();
            let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(words[2]).unwrap() / 3 + 1;
            let iso = format!("{}-{month:02}-{}T{}Z", words[3], words[1], words[4]);
            prop_assert_eq!(timestamp(&iso), after_epoch(seconds));
        }

        #[test]
        fn any_query_is_read_or_ignored(query in "\\PC{0,60}", value in "\\PC{0,30}") {
            let mut url = Url::parse("https://storage.example.com/").unwrap();
            url.query_pairs_mut().append_pair("se", &value).append_pair("Expires", &query);
            lifetime(&url, &HeaderMap::new(), SystemTime::now(), DEFAULT);
        }
    }
}
