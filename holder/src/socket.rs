//! The socket that daemons, and other holders, send to.

use std::{
    fs::DirBuilder,
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::{DirBuilderExt, FileTypeExt},
        unix::net::UnixDatagram,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
            UnixCredentials, recvmsg, sendmsg, setsockopt, sockopt,
        },
        stat::{Mode, fchmod},
        time::TimeVal,
    },
};

use crate::{
    doing,
    message::{FETCH, Message},
};

/// Longest message; longer ones are nothing that a daemon of ours sends.
const MESSAGE_LEN: usize = 4096;
/// Most descriptors in a message that the kernel passes on (`SCM_MAX_FD`).
const DESCRIPTORS: usize = 253;
/// How long a keeper may take to hand over what it has.
const PATIENCE: i64 = 5;

/// Where messages arrive.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// A message and what came with it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: Message,
    pub(crate) text: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Whether somebody receives on the socket `path`.
pub(crate) fn answers(path: &Path) -> bool {
    UnixDatagram::unbound().and_then(|socket| socket.connect(path)).is_ok()
}

// === impl Socket ===

impl Socket {
    /// Receives on `path`, to which only this user may send. A socket that nobody receives on any more is replaced.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let what = format!("receive on {}", path.display());
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(doing(&what))?;
        }
        match path.symlink_metadata() {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(doing(&what)(io::Error::other("something else is there")));
            }
            Ok(_) if answers(path) => {
                return Err(doing(&what)(io::Error::other(
                    "another holder does: give each its own --socket",
                )));
            }
            Ok(_) => std::fs::remove_file(path).map_err(doing(&what))?,
            Err(_) => {}
        }
        Self::bind_new(path).map_err(doing(&what))
    }

    fn bind_new(path: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        // Tells who sent a message.
        setsockopt(&socket, sockopt::PassCred, &true)?;
        // A bound socket's file gets the mode of the unbound one.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
        socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self(socket))
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// The next message, if there is one; those of other users are passed over.
    pub(crate) fn receive(&self) -> io::Result<Option<Received>> {
        loop {
            match receive(&self.0, MsgFlags::MSG_DONTWAIT) {
                Ok((text, descriptors, Some(sender))) if sender.uid() == nix::unistd::geteuid().as_raw() => {
                    return Ok(Some(Received { message: Message::parse(&text), text, descriptors }));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Sends to the holder at `path`.
pub(crate) fn send_to(path: &Path, text: &[u8], descriptors: &[&OwnedFd]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(send(&socket, text, descriptors, MsgFlags::empty())?)
}

/// Gives all of `kept` to the socket of a holder that asked.
pub(crate) fn hand_out<'a>(
    asker: &OwnedFd,
    kept: impl Iterator<Item = &'a (String, OwnedFd)>,
) -> io::Result<()> {
    for (name, descriptor) in kept {
        // One that does not read must not hold this process up.
        send(asker, format!("FDNAME={name}").as_bytes(), &[descriptor], MsgFlags::MSG_DONTWAIT)?;
    }
    Ok(())
}

/// Asks the holder at `path` for all that it keeps.
pub(crate) fn fetch(path: &Path) -> io::Result<Vec<(String, OwnedFd)>> {
    let (ours, theirs) =
        socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    setsockopt(
        &ours,
        sockopt::ReceiveTimeout,
        &TimeVal::from(libc::timeval { tv_sec: PATIENCE, tv_usec: 0 }),
    )?;
    send_to(path, FETCH.as_bytes(), &[&theirs])?;
    drop(theirs);
    let mut kept = Vec::new();
    loop {
        let (text, descriptors, _) = match receive(&ours, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        let Some(name) = text.strip_prefix(b"FDNAME=") else { return Ok(kept) };
        let name = String::from_utf8_lossy(name);
        kept.extend(descriptors.into_iter().map(|descriptor| (name.to_string(), descriptor)));
    }
}

fn send(socket: &impl AsRawFd, text: &[u8], descriptors: &[&OwnedFd], flags: MsgFlags) -> nix::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    let flags = flags | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(text)], control, flags, None).map(drop)
}

type Raw = (Vec<u8>, Vec<OwnedFd>, Option<UnixCredentials>);

/// A message, empty at the end of a stream and when it is too long; its descriptors; who sent it.
#[allow(unsafe_code)]
fn receive(socket: &OwnedFd, flags: MsgFlags) -> nix::Result<Raw> {
    let mut text = vec![0; MESSAGE_LEN];
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS], UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut text)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let (mut descriptors, mut sender) = (Vec::new(), None);
    for part in received.cmsgs()? {
        match part {
            ControlMessageOwned::ScmRights(numbers) => {
                for number in numbers {
                    // SAFETY: the kernel has just made it for this process, and nothing else knows it.
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
            ControlMessageOwned::ScmCredentials(credentials) => sender = Some(credentials),
            _ => {}
        }
    }
    let len = if received.flags.contains(MsgFlags::MSG_TRUNC) { 0 } else { received.bytes };
    text.truncate(len);
    Ok((text, descriptors, sender))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek, Write},
    };

    use super::*;
    use crate::message::Request;

    fn file(text: &str) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.into()
    }

    fn text(descriptor: &OwnedFd) -> String {
        let (mut file, mut text) = (File::from(descriptor.try_clone().unwrap()), String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn descriptors_come_with_their_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/socket");
        let socket = Socket::bind(&path).unwrap();
        assert!(socket.receive().unwrap().is_none());
        send_to(&path, b"FDSTORE=1\nFDNAME=x", &[&file("one"), &file("two")]).unwrap();
        send_to(&path, b"READY=1", &[]).unwrap();
        let stored = socket.receive().unwrap().unwrap();
        assert_eq!(stored.message.request, Some(Request::Store("x".to_owned())));
        assert_eq!(stored.descriptors.iter().map(text).collect::<Vec<_>>(), ["one", "two"]);
        let ready = socket.receive().unwrap().unwrap();
        assert!(ready.message.ready && ready.descriptors.is_empty());
        // Too long to be read whole: it says nothing, and does no harm.
        send_to(&path, &vec![b'x'; 2 * MESSAGE_LEN], &[]).unwrap();
        assert_eq!(socket.receive().unwrap().unwrap().message, Message::default());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let first = Socket::bind(&path).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(Socket::bind(&path).unwrap_err().to_string().contains("--socket"));
        drop(first);
        assert!(!answers(&path));
        Socket::bind(&path).unwrap();
        let other = dir.path().join("file");
        std::fs::write(&other, "kept").unwrap();
        assert!(Socket::bind(&other).is_err());
        assert_eq!(std::fs::read_to_string(other).unwrap(), "kept");
    }

    #[test]
    fn all_that_is_kept_can_be_fetched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let socket = Socket::bind(&path).unwrap();
        let kept = [("a".to_owned(), file("one")), ("b".to_owned(), file("two"))];
        std::thread::scope(|scope| {
            let fetched = scope.spawn(|| fetch(&path).unwrap());
            let asked = loop {
                if let Some(asked) = socket.receive().unwrap() {
                    break asked;
                }
            };
            assert_eq!(asked.message.request, Some(Request::Fetch));
            hand_out(&asked.descriptors[0], kept.iter()).unwrap();
            drop(asked);
            let fetched = fetched.join().unwrap();
            let fetched: Vec<_> = fetched.iter().map(|(name, fd)| (name.as_str(), text(fd))).collect();
            assert_eq!(fetched, [("a", "one".to_owned()), ("b", "two".to_owned())]);
        });
        assert!(fetch(&dir.path().join("nobody")).is_err());
    }
}
