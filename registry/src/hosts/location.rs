//! Where a host is: scheme, authority and the path under which it serves the registry protocol.

use std::fmt;

use url::Url;

/// How to talk to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In clear text.
    Http,
    /// With TLS.
    Https,
}

/// A host's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// With TLS or without.
    pub(crate) scheme: Scheme,
    /// The host and port as they were written: the port tells whether this is the registry itself.
    pub(crate) authority: String,
    /// What comes before the repository's name: `/v2`, unless something else was asked for.
    pub(crate) path: String,
}

/// A text that is no host's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of a host")]
pub(crate) struct InvalidLocation(String);

/// No real address is longer.
const MAX_LEN: usize = 2048;

// === impl Scheme ===

impl Scheme {
    /// As in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

// === impl Location ===

impl Location {
    /// Reads an address as containerd does: without a scheme it is https, and unless `exact` the path ends with `/v2`.
    /// `None` for an address without a host, which stands for the registry that the file is about.
    ///
    /// # Errors
    /// It is no HTTP address.
    pub(crate) fn parse(text: &str, exact: bool) -> Result<Option<Self>, InvalidLocation> {
        // What comes before the host may be a password.
        let invalid =
            || InvalidLocation(text.rsplit('@').next().unwrap_or_default().chars().take(200).collect());
        if text.len() > MAX_LEN || text.bytes().any(|b| b.is_ascii_control() || b == b'\\') {
            return Err(invalid());
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if text.starts_with("http") => (scheme, rest),
            None if text.starts_with("http") => return Ok(None),
            _ => ("https", text),
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(invalid()),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        // A user before the host is no part of its name, and no credential either.
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if authority.is_empty() {
            return Ok(None);
        }
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let location = Self { scheme, authority: authority.to_owned(), path: api_path(path, exact) };
        match location.url() {
            Some(url) if url.has_host() && url.username().is_empty() => Ok(Some(location)),
            _ => Err(invalid()),
        }
    }

    /// The address as a URL that ends with a slash.
    pub(crate) fn url(&self) -> Option<Url> {
        Url::parse(&format!("{}://{}{}/", self.scheme.as_str(), self.authority, self.path)).ok()
    }

    /// The port, if one was written.
    pub(crate) fn port(&self) -> Option<&str> {
        port(&self.authority)
    }
}

/// The port in an authority, if one was written.
pub(super) fn port(authority: &str) -> Option<&str> {
    split_port(authority).1
}

/// An authority without its port, and the port, if one was written.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address are not followed by a port unless its bracket is closed.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.path)
    }
}

/// The path without a slash at its end, dots and doubled slashes taken out, with `/v2` if it belongs there.
fn api_path(path: &str, exact: bool) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if !exact && parts.last() != Some(&"v2") {
        parts.push("v2");
    }
    parts.into_iter().flat_map(|part| ["/", part]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, exact: bool) -> Option<String> {
        Location::parse(text, exact).unwrap().map(|location| location.to_string())
    }

    #[test]
    fn addresses_are_completed() {
        for (text, exact, expected) in [
            ("https://mirror.example", false, "https://mirror.example/v2"),
            ("mirror.example:5000", false, "https://mirror.example:5000/v2"),
            ("http://mirror.example/", false, "http://mirror.example/v2"),
            ("http://[::1]:5000", false, "http://[::1]:5000/v2"),
            ("https://mirror.example/us", false, "https://mirror.example/us/v2"),
            ("https://mirror.example/us//./x/../v2/", false, "https://mirror.example/us/v2"),
            ("https://mirror.example/foov2", false, "https://mirror.example/foov2/v2"),
            ("https://mirror.example/v2/prefix", true, "https://mirror.example/v2/prefix"),
            ("https://mirror.example", true, "https://mirror.example"),
            ("https://mirror.example/", true, "https://mirror.example"),
            ("https://user:pass@mirror.example/a?b=c#d", false, "https://mirror.example/a/v2"),
            ("https://mirror.example:443", false, "https://mirror.example:443/v2"),
        ] {
            assert_eq!(read(text, exact).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn an_address_without_a_host_stands_for_the_registry_itself() {
        for text in ["", "/v2", "https://", "https:///x", "httpbin.example"] {
            assert_eq!(read(text, false), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let error = Location::parse("https://user:planted@a b", false).unwrap_err().to_string();
        assert!(error.contains("a b") && !error.contains("planted"), "{error}");
        for text in [
            "https://a b",
            "https://exa\nmple",
            "https://a:99999",
            "httpx://a",
            "https://[::1",
            "a\u{0}b",
            "a\\b",
        ] {
            assert!(Location::parse(text, false).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_port_is_what_was_written() {
        for (text, port) in
            [("a.example", None), ("a.example:80", Some("80")), ("[::1]", None), ("[::1]:5", Some("5"))]
        {
            let location = Location::parse(text, false).unwrap().unwrap();
            assert_eq!(location.port(), port, "{text}");
        }
    }
}
