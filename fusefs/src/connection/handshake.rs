//! The first exchange with the kernel, which it has once in the life of a connection.
//!
//! fuser begins every session with it, and cannot take over a connection that had it. So fuser talks to a socket at
//! first, on whose other end the kernel's question is passed on or, for a successor, asked once more as the predecessor
//! settled it; then the device takes the socket's place.

use std::{
    io,
    mem::ManuallyDrop,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use fuser::{Session, SessionACL};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::{dup3, read, write},
};

use super::state::InitParameters;
use crate::server::Server;

/// The kernel gives nothing to a reader with less room (`FUSE_MIN_READ_BUFFER`).
const ROOM: usize = 8192;
/// `struct fuse_in_header` and `struct fuse_init_in`.
const QUESTION_LEN: usize = 40 + 64;
const FUSE_INIT: u32 = 26;
/// The one major version there is. To a newer one fuser would answer with the wait for a second question.
const MAJOR: u32 = 7;
/// Says that the upper half of the features is there too.
const INIT_EXT: u64 = 1 << 30;
/// `FUSE_NOTIFY_RESEND`, in kernels from 6.9 on.
const NOTIFY_RESEND: i32 = 7;

/// A session, and what it and the kernel settled.
pub(super) type Settled = (Session<Server>, InitParameters);

/// Answers the kernel on a new connection.
pub(super) fn first(server: Server, device: &OwnedFd, config: fuser::Config) -> io::Result<Settled> {
    let mut question = [0; ROOM];
    let len = loop {
        match read(device, &mut question) {
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOENT) => {}
            received => break received?,
        }
    };
    let question = question.get(..len).unwrap_or_default();
    let offered = question_parameters(question).ok_or(io::ErrorKind::InvalidData)?;
    tracing::debug!(?offered, "kernel offers a FUSE connection");
    let (session, answer, granted) = over_socket(server, question, config)?;
    write(device, &answer)?;
    put_in_place(device, &session)?;
    Ok((session, InitParameters { flags: granted, ..offered }))
}

/// Goes on with a connection for which `settled` was settled. What a newer daemon would ask for beyond it, it is told
/// that it cannot have.
pub(super) fn again(
    server: Server,
    device: &OwnedFd,
    settled: InitParameters,
    config: fuser::Config,
) -> io::Result<Settled> {
    let (session, _, granted) = over_socket(server, &question(&settled), config)?;
    if granted != settled.flags {
        tracing::info!(settled = settled.flags, granted, "the connection has features that nobody wants now");
    }
    put_in_place(device, &session)?;
    Ok((session, settled))
}

/// Has the kernel ask once more what a predecessor took and did not answer; false if it cannot.
pub(super) fn resend(device: &OwnedFd) -> io::Result<bool> {
    // `struct fuse_out_header`: a notification has its code for an error and answers nothing.
    let mut message = [0; 16];
    put(&mut message, 0, &16_u32.to_ne_bytes());
    put(&mut message, 4, &NOTIFY_RESEND.to_ne_bytes());
    match write(device, &message) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The session, its answer, and the features in that.
fn over_socket(
    server: Server,
    question: &[u8],
    config: fuser::Config,
) -> io::Result<(Session<Server>, Vec<u8>, u64)> {
    if question_parameters(question).is_none_or(|parameters| parameters.major != MAJOR) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // Keeps messages apart, as the device does.
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    write(&ours, question)?;
    let session = Session::from_fd(server, theirs, SessionACL::All, config)?;
    let mut answer = [0; ROOM];
    let len = read(&ours, &mut answer)?;
    let answer = answer.get(..len).unwrap_or_default();
    let granted = answer_flags(answer).ok_or(io::ErrorKind::InvalidData)?;
    Ok((session, answer.to_vec(), granted))
}

/// The session's descriptor becomes one of the device.
#[allow(unsafe_code)]
fn put_in_place(device: &OwnedFd, session: &Session<Server>) -> io::Result<()> {
    // SAFETY: the descriptor is open, for the session has it. It stays the session's: `dup3` gives its number another
    // file without ever closing the number, and nothing drops this second owner.
    let place = unsafe { OwnedFd::from_raw_fd(session.as_fd().as_raw_fd()) };
    let mut place = ManuallyDrop::new(place);
    Ok(dup3(device, &mut place, OFlag::O_CLOEXEC)?)
}

/// `FUSE_INIT`, as the kernel asks it.
fn question(parameters: &InitParameters) -> [u8; QUESTION_LEN] {
    let mut message = [0; QUESTION_LEN];
    let flags = parameters.flags | INIT_EXT;
    let words = [
        (0, QUESTION_LEN as u32),
        (4, FUSE_INIT),
        // The number to answer to; 0 is for notifications.
        (8, 2),
        (40, parameters.major),
        (44, parameters.minor),
        (48, parameters.max_readahead),
        (52, flags as u32),
        (56, (flags >> 32) as u32),
    ];
    for (at, value) in words {
        put(&mut message, at, &value.to_ne_bytes());
    }
    message
}

fn question_parameters(message: &[u8]) -> Option<InitParameters> {
    if word(message, 4)? != FUSE_INIT {
        return None;
    }
    let [major, minor, max_readahead, lower] = [40, 44, 48, 52].map(|at| word(message, at));
    let flags = both_halves(lower?, word(message, 56));
    Some(InitParameters { major: major?, minor: minor?, max_readahead: max_readahead?, flags })
}

/// The features in an answer: `struct fuse_out_header` and `struct fuse_init_out`.
fn answer_flags(message: &[u8]) -> Option<u64> {
    if word(message, 4)? != 0 {
        return None;
    }
    Some(both_halves(word(message, 16 + 12)?, word(message, 16 + 32)))
}

fn both_halves(lower: u32, upper: Option<u32>) -> u64 {
    let lower = u64::from(lower);
    let upper = upper.filter(|_| lower & INIT_EXT != 0).map_or(0, |upper| u64::from(upper) << 32);
    (lower & !INIT_EXT) | upper
}

fn word(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn put(message: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = message.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: InitParameters =
        InitParameters { major: 7, minor: 45, max_readahead: 131_072, flags: 0x80_0001_0000_a9fb };

    #[test]
    fn a_question_is_read_as_it_was_written() {
        assert_eq!(question_parameters(&question(&PARAMETERS)), Some(PARAMETERS));
        let narrow = InitParameters { flags: 3, ..PARAMETERS };
        assert_eq!(question_parameters(&question(&narrow)), Some(narrow));
    }

    #[test]
    fn what_is_no_question_or_answer_is_not_taken_for_one() {
        let whole = question(&PARAMETERS);
        for len in 0..56 {
            assert_eq!(question_parameters(&whole[..len]), None, "{len}");
        }
        let mut other = whole;
        put(&mut other, 4, &15_u32.to_ne_bytes());
        assert_eq!(question_parameters(&other), None);
        // An error has no features.
        let mut refused = [0; 80];
        put(&mut refused, 4, &(-5_i32).to_ne_bytes());
        assert_eq!(answer_flags(&refused), None);
        assert_eq!(answer_flags(&[]), None);
    }

    #[test]
    fn the_upper_features_count_only_if_they_are_announced() {
        assert_eq!(both_halves(1, Some(9)), 1);
        assert_eq!(both_halves(1 | INIT_EXT as u32, Some(9)), 9 << 32 | 1);
        assert_eq!(both_halves(1 | INIT_EXT as u32, None), 1);
    }
}
