//! Names of images, read as Docker and containerd read them.
//!
//! `[host[:port]/]path[:tag][@digest]`: without a host the image is docker.io's, without a path prefix it
//! is in docker.io's `library/`, without a tag and digest it is `latest` (distribution reference grammar,
//! `reference.go` and `normalize.go`). A parsed reference is safe to put into a URL path.

use std::{fmt, str::FromStr};

use estargz::Digest;

/// The name under which images without a host are known.
const DOCKER_IO: &str = "docker.io";
/// What docker.io was called in the first registry protocol; still found in references.
const INDEX_DOCKER_IO: &str = "index.docker.io";
/// The host that serves the registry protocol for docker.io.
const DOCKER_IO_API: &str = "registry-1.docker.io";
/// The longest host and path together that registries accept (distribution `NameTotalLengthMax`).
const MAX_NAME: usize = 255;
/// The longest tag (OCI distribution-spec, "Pulling manifests").
const MAX_TAG: usize = 128;

/// A parsed image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image reference: {reason}")]
pub struct InvalidReference {
    text: String,
    reason: &'static str,
}

// === impl Reference ===

impl Reference {
    /// The host (and port) of the reference's name, `docker.io` where none was written.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host (and port) that serves the registry protocol for this reference.
    pub fn api_host(&self) -> &str {
        if self.host == DOCKER_IO { DOCKER_IO_API } else { &self.host }
    }

    /// The repository's path, with `library/` where docker.io implies it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if the reference has neither tag nor digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, if the reference pins one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What names the manifest in `/v2/<name>/manifests/<this>`: the digest, else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same repository, pinned to the manifest `digest`; the tag stays for people to read.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The same repository with another tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, InvalidReference> {
        check_tag(tag).map_err(|reason| invalid(tag, reason))?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| invalid(text, reason))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn invalid(text: &str, reason: &'static str) -> InvalidReference {
    InvalidReference { text: text.chars().take(MAX_NAME).collect(), reason }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err("64 hexadecimal digits are an image id, not a name");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            (rest, Some(digest.parse::<Digest>().map_err(|_| "the digest is not a sha256 one")?))
        }
        None => (text, None),
    };
    let (host, rest) = split_host(rest);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let host = if host == INDEX_DOCKER_IO { DOCKER_IO } else { host };
    check_host(host)?;
    check_path(path)?;
    let library = host == DOCKER_IO && !path.contains('/');
    let repository = if library { format!("library/{path}") } else { path.to_owned() };
    if host.len() + 1 + repository.len() > MAX_NAME {
        return Err("it is longer than 255 characters");
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference { host: host.to_owned(), repository, tag, digest })
}

/// The first component is a host if it could not be one of a path: it has a dot, a colon or an upper-case
/// letter, or is `localhost` (distribution `splitDockerDomain`).
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DOCKER_IO, name),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or("the host's bracket is not closed")?;
            address
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| "the host in brackets is not an IPv6 address")?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err("something other than a port follows the host"),
            };
            (None, port)
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        },
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with('+')) {
        return Err("the host's port is not a number up to 65535");
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match name {
        Some(name) if !name.split('.').all(label) => {
            Err("the host has characters that host names do not have")
        }
        _ => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository's name must be in lower case");
    }
    if path.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err("the repository's name is empty or malformed")
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes.split(alphanumeric).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    let valid = bytes.next().is_some_and(word) && bytes.all(|b| word(b) || b == b'.' || b == b'-');
    if valid && tag.len() <= MAX_TAG { Ok(()) } else { Err("the tag is empty, too long or malformed") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parts(text: &str) -> (String, String, String) {
        let reference: Reference = text.parse().unwrap();
        (reference.host().to_owned(), reference.repository().to_owned(), reference.selector())
    }

    #[test]
    fn follows_the_docker_io_rules() {
        let cases = [
            ("alpine", "docker.io", "library/alpine", "latest"),
            ("alpine:3", "docker.io", "library/alpine", "3"),
            ("user/app", "docker.io", "user/app", "latest"),
            ("docker.io/alpine", "docker.io", "library/alpine", "latest"),
            ("index.docker.io/user/app:1", "docker.io", "user/app", "1"),
            ("localhost/app", "localhost", "app", "latest"),
            ("localhost:5000/a/b/c:T_.-1", "localhost:5000", "a/b/c", "T_.-1"),
            ("127.0.0.1:80/a", "127.0.0.1:80", "a", "latest"),
            ("[::1]:5000/a", "[::1]:5000", "a", "latest"),
            ("[2001:db8::1]/a:t", "[2001:db8::1]", "a", "t"),
            ("Host/app", "Host", "app", "latest"),
            ("example.com/a__b/c-_d", "", "", ""),
            ("example.com/a__b/c--d.e_f", "example.com", "a__b/c--d.e_f", "latest"),
        ];
        for (text, host, repository, selector) in cases {
            if host.is_empty() {
                assert!(text.parse::<Reference>().is_err(), "{text}");
            } else {
                assert_eq!(parts(text), (host.into(), repository.into(), selector.into()), "{text}");
            }
        }
    }

    #[test]
    fn a_digest_wins_over_the_tag_and_is_kept_with_it() {
        let text = format!("example.com/app:1@{DIGEST}");
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.selector(), DIGEST);
        assert_eq!(reference.tag(), Some("1"));
        assert_eq!(reference.to_string(), text);
        let only: Reference = format!("app@{DIGEST}").parse().unwrap();
        assert_eq!((only.tag(), only.selector().as_str()), (None, DIGEST));
        assert_eq!(only.with_tag("2").unwrap().selector(), "2");
        assert!(only.with_tag("../x").is_err());
    }

    #[test]
    fn docker_io_is_served_by_another_host() {
        assert_eq!("alpine".parse::<Reference>().unwrap().api_host(), DOCKER_IO_API);
        assert_eq!("example.com/a".parse::<Reference>().unwrap().api_host(), "example.com");
    }

    #[test]
    fn refuses_what_is_not_a_reference() {
        let id = "0".repeat(64);
        let long = format!("example.com/{}", "a".repeat(255));
        let tag = format!("a:{}", "t".repeat(129));
        let bad = [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "example.com/A",
            "a:",
            "a:-x",
            "a@",
            "a@sha256:12",
            "a b",
            "a/../b",
            "example.com/a?b",
            "exa mple.com/a",
            "-a.com/b",
            "a.com:x/b",
            "a.com:+1/b",
            "a.com:99999/b",
            "a:t:u",
            "[::1/a",
            "[::g]:1/a",
            "[::1]x/a",
            "user@host/a",
            "https://example.com/a",
            "a.com/b%2f",
            &id,
            &long,
            &tag,
        ];
        for text in bad {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<Reference>();
        }

        #[test]
        fn display_parses_to_the_same(
            host in "([a-z]{1,8}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?/)?",
            path in "[a-z0-9]{1,6}([_-][a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,5}){0,3}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
            pinned: bool,
        ) {
            let digest = if pinned { format!("@{DIGEST}") } else { String::new() };
            let reference: Reference = format!("{host}{path}{tag}{digest}").parse().unwrap();
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }
}
