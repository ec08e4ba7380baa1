//! What a daemon says: lines of `NAME=value`, as sd_notify(3) has them.

/// Longest name of a descriptor that systemd takes.
const NAME_LEN: usize = 255;
/// What systemd calls a descriptor without a name.
const NO_NAME: &str = "stored";

/// The parts of a message that matter here; the others are for managers that show them to people.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// The daemon serves.
    pub(crate) ready: bool,
    /// What to do with descriptors.
    pub(crate) request: Option<Request>,
}

/// What to do with descriptors.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Keep those that came with the message, under this name.
    Store(String),
    /// Drop those of this name.
    Remove(String),
    /// Send all that are kept to the socket that came with the message. Of holders among themselves.
    Fetch,
}

/// Asks for all descriptors; a name that systemd ignores.
pub(crate) const FETCH: &str = "X_STARLING_FETCH=1";

// === impl Message ===

impl Message {
    /// Reads a message; what is not understood is passed over.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let says = |wanted: &str| text.lines().any(|line| line == wanted);
        let given = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        let name = || given.filter(|name| is_name(name)).unwrap_or(NO_NAME).to_owned();
        let request = if says("FDSTOREREMOVE=1") {
            Some(Request::Remove(name()))
        } else if says("FDSTORE=1") {
            Some(Request::Store(name()))
        } else {
            says(FETCH).then_some(Request::Fetch)
        };
        Self { ready: says("READY=1"), request }
    }
}

/// Whether a name can stand in `$LISTEN_FDNAMES`.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LEN
        && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Option<Request> {
        Message::parse(text.as_bytes()).request
    }

    #[test]
    fn requests_are_read_in_any_order() {
        let stored = Some(Request::Store("a.1".to_owned()));
        assert_eq!(request("FDSTORE=1\nFDNAME=a.1\n"), stored);
        assert_eq!(request("FDNAME=a.1\nFDPOLL=0\nFDSTORE=1"), stored);
        assert_eq!(request("FDSTOREREMOVE=1\nFDNAME=a.1"), Some(Request::Remove("a.1".to_owned())));
        assert_eq!(request(FETCH), Some(Request::Fetch));
        let ready = Message::parse(b"STATUS=x\nREADY=1\nMAINPID=7");
        assert_eq!(ready, Message { ready: true, request: None });
    }

    #[test]
    fn a_name_that_cannot_be_passed_on_is_none() {
        for name in ["", "a:b", "a\tb", "\u{e4}", &"x".repeat(256)] {
            let text = format!("FDSTORE=1\nFDNAME={name}");
            assert_eq!(request(&text), Some(Request::Store(NO_NAME.to_owned())), "{name:?}");
        }
    }

    #[test]
    fn nonsense_asks_for_nothing() {
        for text in [&b""[..], b"\0\xff", b"FDSTORE=2", b"READY=11", b"FDNAME=x"] {
            assert_eq!(Message::parse(text), Message::default());
        }
    }
}
