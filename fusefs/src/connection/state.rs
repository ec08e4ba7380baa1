//! What a successor must know to go on serving a connection, in a form that can be the name of a descriptor.

use std::{fmt, os::fd::OwnedFd, str::FromStr};

/// What kernel and daemon settled when the connection was made (`struct fuse_init_in`, with the features that the daemon
/// took): the kernel says it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitParameters {
    /// Major version of the protocol.
    pub major: u32,
    /// Minor version of the protocol.
    pub minor: u32,
    /// Largest read-ahead in bytes.
    pub max_readahead: u32,
    /// Features, both halves (`flags2 << 32 | flags`), without `FUSE_INIT_EXT`.
    pub flags: u64,
}

/// All that a successor needs beside the descriptor.
///
/// Its text is at most 255 visible ASCII characters without colons: a service manager keeps it as the descriptor's
/// name, so that there is nothing else to keep, and nothing that can be lost apart from the descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionState {
    /// What was settled with the kernel.
    pub init: InitParameters,
    /// Device number of the mount, by which it is found in the list of mounts.
    pub device: (u32, u32),
}

/// A connection that was served before.
#[derive(Debug)]
pub struct Predecessor {
    /// What is known of it.
    pub state: ConnectionState,
    /// Its `/dev/fuse`.
    pub device: OwnedFd,
}

/// A text is no [`ConnectionState`] that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the state of a FUSE connection")]
pub struct ParseStateError;

/// The first part of the text, and its version.
const PREFIX: &str = "starling-fuse-1";

// === impl ConnectionState ===

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { init, device } = self;
        write!(f, "{PREFIX}.{}.{}.{}.{:x}", init.major, init.minor, init.max_readahead, init.flags)?;
        write!(f, ".{}.{}", device.0, device.1)
    }
}

impl FromStr for ConnectionState {
    type Err = ParseStateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<_> = text.split('.').collect();
        let [PREFIX, major, minor, max_readahead, flags, device_major, device_minor] = parts.as_slice()
        else {
            return Err(ParseStateError);
        };
        let number = |text: &str| text.parse::<u32>().map_err(|_| ParseStateError);
        let init = InitParameters {
            major: number(major)?,
            minor: number(minor)?,
            max_readahead: number(max_readahead)?,
            flags: u64::from_str_radix(flags, 16).map_err(|_| ParseStateError)?,
        };
        Ok(Self { init, device: (number(device_major)?, number(device_minor)?) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_text_leads_back_and_can_be_a_name(
            numbers: (u32, u32, u32), flags: u64, device: (u32, u32)
        ) {
            let (major, minor, max_readahead) = numbers;
            let state = ConnectionState { init: InitParameters { major, minor, max_readahead, flags }, device };
            let text = state.to_string();
            prop_assert_eq!(text.parse(), Ok(state));
            prop_assert!(text.len() <= 255);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
        }

        #[test]
        fn no_text_is_too_odd(text: String) {
            let _ = text.parse::<ConnectionState>();
        }
    }

    #[test]
    fn other_versions_and_names_are_not_understood() {
        for text in [
            "",
            "starling-fuse-1",
            "starling-fuse-2.7.45.0.0.0.52",
            "stored",
            "starling-fuse-1.7.45.0.g.0.52",
        ] {
            assert_eq!(text.parse::<ConnectionState>(), Err(ParseStateError), "{text}");
        }
    }
}
