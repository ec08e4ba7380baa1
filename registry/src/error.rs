//! Failures of requests, in a form that retries can be decided from.
//!
//! What leaves the crate is [`SourceError`]. Nothing in a message may be secret: URLs are shown without
//! query and user (signed URLs are credentials), and of an answer's body only the registry protocol's
//! own error list is quoted, and only if it came from the registry itself.

use std::{error::Error, io, sync::Arc, time::Duration};

use http::StatusCode;
use rustls::{AlertDescription, InvalidMessage};
use serde::Deserialize;
use store::{SourceError, SourceErrorKind as Kind};
use url::Url;

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What to report if it is the last attempt.
    pub(crate) error: SourceError,
    /// Whether another attempt may help.
    pub(crate) retry: Retry,
    /// The status of the answer, if there was one.
    pub(crate) status: Option<StatusCode>,
}

/// Whether another attempt may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It may, after at least this time if the server said so.
    May(Option<Duration>),
    /// It may, and the first time without delay: the connection broke, which idle connections do when
    /// they are used at the moment the server closes them.
    AtOnce,
    /// The answer broke the protocol: it may have been an accident on the way.
    Doubtful,
    /// It will fail in the same way.
    Never,
    /// So will it, if the host is spoken to with TLS: it does not know it.
    NotTls,
}

/// At most this much of a registry's explanation is quoted.
const MAX_QUOTE: usize = 300;

// === impl Failure ===

impl Failure {
    /// For one of those who met it together: the last of them has its cause too.
    pub(crate) fn of_many(shared: Arc<Self>) -> Self {
        let copied = |shared: Arc<Self>| Self {
            error: SourceError::new(shared.error.kind, shared.error.message.clone()),
            retry: shared.retry,
            status: shared.status,
        };
        Arc::try_unwrap(shared).unwrap_or_else(copied)
    }

    pub(crate) fn fatal(kind: Kind, message: impl Into<String>) -> Self {
        Self { error: SourceError::new(kind, message), retry: Retry::Never, status: None }
    }

    pub(crate) fn passing(kind: Kind, message: impl Into<String>) -> Self {
        Self { error: SourceError::new(kind, message), retry: Retry::May(None), status: None }
    }

    /// An answer that breaks the protocol.
    pub(crate) fn doubtful(url: &Url, what: impl std::fmt::Display) -> Self {
        let error = SourceError::new(Kind::Protocol, format!("{}: {what}", shown(url)));
        Self { error, retry: Retry::Doubtful, status: None }
    }

    pub(crate) fn timed_out(url: &Url, what: &str, after: Duration) -> Self {
        let seconds = after.as_secs_f64();
        Self::passing(Kind::TimedOut, format!("{}: {what} for {seconds:.1} s", shown(url)))
    }

    /// The request could not be sent, or its answer broke off.
    pub(crate) fn transport(url: &Url, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let url = shown(url);
        if let Some(tls) = tls_error(&error) {
            let plain = matches!(tls, rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType));
            let (advice, retry) = match plain {
                true => ("if the registry speaks no TLS, say so in the configuration", Retry::NotTls),
                false => (
                    "if the registry uses a private certificate authority, add its certificate to the configuration",
                    Retry::Never,
                ),
            };
            let message = format!("{url}: the TLS connection failed: {tls}; {advice}");
            let error = SourceError::new(Kind::Unavailable, message).caused_by(error);
            return Self { error, retry, status: None };
        }
        let kind = if error.is_timeout() { Kind::TimedOut } else { Kind::Unavailable };
        let (what, retry) = match error.is_connect() {
            true => ("cannot connect", Retry::May(None)),
            false => ("the connection broke", Retry::AtOnce),
        };
        let message = format!("{url}: {what}: {}", root_cause(&error));
        Self { error: SourceError::new(kind, message).caused_by(error), retry, status: None }
    }

    /// An answer with a status that is an error; `explanation` is what the registry said about it.
    pub(crate) fn status(url: &Url, status: StatusCode, explanation: &str, after: Option<Duration>) -> Self {
        let url = shown(url);
        let said = if explanation.is_empty() { String::new() } else { format!(": {explanation}") };
        let code = status.as_u16();
        let (kind, retry, advice) = match code {
            401 => (Kind::Unauthorized, Retry::Never, "; check the credentials for this registry"),
            403 => (Kind::Forbidden, Retry::Never, "; check what these credentials may access"),
            404 => (Kind::NotFound, Retry::Never, ""),
            429 => (Kind::Unavailable, Retry::May(after), "; the registry limits the rate of requests"),
            408 | 500 | 502..=599 => (Kind::Unavailable, Retry::May(after), ""),
            _ => (Kind::Protocol, Retry::Never, ""),
        };
        let error = SourceError::new(kind, format!("{url}: the server answered {status}{said}{advice}"));
        Self { error, retry, status: Some(status) }
    }

    /// Whether a host that was spoken to with TLS may speak in clear text, as containerd has it: it answered with what
    /// is no TLS or, if clear text means `another_port`, nobody answered at this one. Who can only drop packets must
    /// not be able to get a request in clear text.
    pub(crate) fn may_be_plain(&self, another_port: bool) -> bool {
        let nobody = self.error.kind == Kind::TimedOut || self.is_refused_connection();
        self.status.is_none() && (self.retry == Retry::NotTls || another_port && nobody)
    }

    fn is_refused_connection(&self) -> bool {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&self.error);
        while let Some(error) = cause {
            let io = error.downcast_ref::<io::Error>();
            if io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Whether a host that was spoken to in clear text may want TLS: it hung up, sent what is no HTTP, or complained.
    pub(crate) fn may_be_tls(&self) -> bool {
        matches!((self.status, self.retry), (Some(StatusCode::BAD_REQUEST), _) | (None, Retry::AtOnce))
    }

    /// Whether the host is to blame, and not what it was asked for.
    pub(crate) fn blames_host(&self) -> bool {
        match self.retry {
            Retry::May(_) | Retry::AtOnce | Retry::Doubtful | Retry::NotTls => true,
            Retry::Never => self.status.is_none() && self.error.kind == Kind::Unavailable,
        }
    }

    /// The same failure with a word on what was being done.
    #[must_use]
    pub(crate) fn while_doing(mut self, what: &str) -> Self {
        self.error.message = format!("{what}: {}", self.error.message);
        self
    }
}

impl From<Failure> for SourceError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// A URL as it may appear in messages: without query, fragment and user.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // These fail only for URLs that cannot have a user, such as `data:`.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// The registry protocol's error list (OCI distribution-spec, "Error Codes") in one line, cut to a
/// sensible length and to printable characters.
pub(crate) fn explanation(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return String::new() };
    let items = answer.errors.iter().take(3).map(|item| match item.message.as_str() {
        "" => item.code.clone(),
        message => format!("{} ({message})", item.code),
    });
    let text = items.collect::<Vec<_>>().join(", ");
    text.chars().filter(|c| !c.is_control()).take(MAX_QUOTE).collect()
}

/// What an error comes down to.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Whether a server does not speak HTTP/1.1, as far as TLS tells.
pub(crate) fn refuses_http1(error: &reqwest::Error) -> bool {
    let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    tls_error(error).is_some_and(|error| error == alert)
}

/// The TLS error in the chain of causes; `io::Error` hides the error it wraps from `source`.
fn tls_error(error: &(dyn Error + 'static)) -> Option<rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = wrapped.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(tls) = tls.or_else(|| error.downcast_ref::<rustls::Error>()) {
            return Some(tls.clone());
        }
        next = match wrapped {
            Some(inner) if error.source().is_none() => Some(inner),
            _ => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_what_may_be_secret() {
        let url = Url::parse("https://user:pass@storage.example.com/a/b?X-Amz-Signature=secret#f").unwrap();
        assert_eq!(shown(&url), "https://storage.example.com/a/b");
    }

    #[test]
    fn explanations_are_quoted_in_one_bounded_line() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\naccess","detail":{"a":1}},{"code":"X"}]}"#;
        assert_eq!(explanation(body), "DENIED (noaccess), X");
        assert_eq!(explanation(b"<html>"), "");
        let long = format!(r#"{{"errors":[{{"code":"{}"}}]}}"#, "x".repeat(5000));
        assert_eq!(explanation(long.as_bytes()).len(), MAX_QUOTE);
    }

    #[test]
    fn only_what_is_no_tls_or_nobody_at_the_usual_port_speaks_for_clear_text() {
        let url = Url::parse("https://example.com/v2/").unwrap();
        let with = |retry| Failure { retry, ..Failure::fatal(Kind::Unavailable, "x") };
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = SourceError::new(Kind::Unavailable, "x").caused_by(refused);
        let cases = [
            (with(Retry::NotTls), [true, true]),
            (with(Retry::AtOnce), [false, false]),
            (with(Retry::May(None)), [false, false]),
            (Failure { error, retry: Retry::May(None), status: None }, [false, true]),
            (Failure::timed_out(&url, "no answer", Duration::from_secs(1)), [false, true]),
            (Failure::status(&url, StatusCode::GATEWAY_TIMEOUT, "", None), [false, false]),
        ];
        for (failure, expected) in cases {
            let found = [false, true].map(|another_port| failure.may_be_plain(another_port));
            assert_eq!(found, expected, "{failure:?}");
        }
    }

    #[test]
    fn statuses_say_whether_another_attempt_may_help() {
        let url = Url::parse("https://example.com/v2/").unwrap();
        let after = Some(Duration::from_secs(3));
        let cases = [
            (401, Kind::Unauthorized, Retry::Never),
            (403, Kind::Forbidden, Retry::Never),
            (404, Kind::NotFound, Retry::Never),
            (408, Kind::Unavailable, Retry::May(after)),
            (429, Kind::Unavailable, Retry::May(after)),
            (500, Kind::Unavailable, Retry::May(after)),
            (501, Kind::Protocol, Retry::Never),
            (503, Kind::Unavailable, Retry::May(after)),
            (418, Kind::Protocol, Retry::Never),
        ];
        for (code, kind, retry) in cases {
            let failure = Failure::status(&url, StatusCode::from_u16(code).unwrap(), "", after);
            assert_eq!((failure.error.kind, failure.retry), (kind, retry), "{code}");
        }
    }
}
