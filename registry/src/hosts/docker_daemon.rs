//! What Docker's `daemon.json` says of registries.
//!
//! `registry-mirrors` are mirrors of docker.io only; `insecure-registries` are hosts or networks whose certificates are
//! not looked at and which may speak in clear text. Docker looks the names of hosts up to compare them with networks;
//! here only addresses are compared with them.

use std::{fs, io, net::IpAddr, path::Path};

use serde::Deserialize;

use super::location::split_port;
use crate::regular_file;

/// A longer file is not Docker's.
const MAX_LEN: u64 = 1 << 20;

/// The part of `daemon.json` that is about registries.
#[derive(Debug, Default, Deserialize)]
pub(super) struct DockerDaemon {
    /// Mirrors of docker.io, as URLs.
    #[serde(default, rename = "registry-mirrors")]
    pub(super) mirrors: Vec<String>,
    #[serde(default, rename = "insecure-registries")]
    insecure: Vec<String>,
}

/// A `daemon.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path} for registry mirrors: {reason}")]
pub(super) struct Unusable {
    path: String,
    #[source]
    reason: io::Error,
}

// === impl DockerDaemon ===

impl DockerDaemon {
    /// Reads the file; one that does not exist says nothing.
    pub(super) fn read(path: &Path) -> Result<Self, Unusable> {
        let unusable = |reason| Unusable { path: path.display().to_string(), reason };
        let text = match fs::metadata(path) {
            Ok(metadata) if metadata.len() > MAX_LEN => {
                return Err(unusable(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large")));
            }
            Ok(_) => regular_file::read(path, MAX_LEN).map_err(unusable)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unusable(error)),
        };
        // Docker takes an empty file for an empty object.
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        serde_json::from_slice(&text).map_err(|error| {
            // The parser's own message may quote a mirror's address, in which there may be a password.
            let place = format!("see line {}, column {}", error.line(), error.column());
            unusable(io::Error::new(io::ErrorKind::InvalidData, place))
        })
    }

    /// Whether `authority` is listed, itself or by a network that holds its address.
    pub(super) fn is_insecure(&self, authority: &str) -> bool {
        let (name, _) = split_port(authority);
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        self.insecure.iter().any(|listed| match (listed.split_once('/'), address) {
            (Some((network, bits)), Some(address)) => holds(network, bits, address),
            (Some(_), None) => false,
            // Listed without a port: Docker takes it for the host's usual ports only, that is for the same text.
            (None, _) => listed.eq_ignore_ascii_case(authority),
        })
    }
}

/// Whether the network `network/bits` holds `address`.
fn holds(network: &str, bits: &str, address: IpAddr) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DockerDaemon, Unusable> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("daemon.json");
        fs::write(&path, text).unwrap();
        DockerDaemon::read(&path)
    }

    #[test]
    fn mirrors_and_insecure_registries_are_read_and_the_rest_is_passed_over() {
        let docker = read(
            r#"{"registry-mirrors": ["https://mirror.example"], "features": {"x": true},
                "insecure-registries": ["plain.example:5000", "bare.example", "10.1.0.0/16", "fd00::/8"]}"#,
        )
        .unwrap();
        assert_eq!(docker.mirrors, ["https://mirror.example"]);
        for (authority, insecure) in [
            ("plain.example:5000", true),
            ("Plain.Example:5000", true),
            ("plain.example", false),
            ("bare.example", true),
            ("10.1.2.3:5000", true),
            ("10.2.2.3:5000", false),
            ("[fd00::1]:5000", true),
            ("[fe00::1]", false),
            ("other.example", false),
        ] {
            assert_eq!(docker.is_insecure(authority), insecure, "{authority}");
        }
    }

    #[test]
    fn networks_of_all_sizes_are_compared() {
        let address: IpAddr = "10.1.2.3".parse().unwrap();
        assert!(holds("0.0.0.0", "0", address) && holds("10.1.2.3", "32", address));
        assert!(!holds("10.1.2.2", "32", address) && !holds("10.0.0.0", "33", address));
        assert!(!holds("::", "0", address) && !holds("x", "0", address) && !holds("0.0.0.0", "x", address));
        assert!(holds("::", "0", "::1".parse().unwrap()));
    }

    #[test]
    fn a_missing_or_empty_file_says_nothing_and_a_broken_one_is_named() {
        assert!(read("").unwrap().mirrors.is_empty());
        assert!(DockerDaemon::read(Path::new("/nonexistent/daemon.json")).unwrap().mirrors.is_empty());
        for text in ["{", "3", r#"{"registry-mirrors": 3}"#] {
            assert!(read(text).unwrap_err().to_string().contains("daemon.json"), "{text}");
        }
        let text = r#"{"registry-mirrors": "https://me:planted@mirror.example"}"#;
        let error = read(text).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
        assert!(!format!("{error} {error:?}").contains("planted"), "{error:?}");
    }
}
