//! Descriptors that outlive the daemon: the service manager keeps them and passes them to the next daemon.
//!
//! This is systemd's descriptor store (sd_notify(3), sd_listen_fds(3)); where there is no systemd, `starling-holder` does
//! the same. Without either, nothing is kept, and nothing else changes.

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// A descriptor that a predecessor had kept, with the name that it gave.
#[derive(Debug)]
pub struct Inherited {
    /// Its name.
    pub name: String,
    /// The descriptor.
    pub descriptor: OwnedFd,
}

/// Whether they were taken: what belongs to one owner is given out once.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that this process was started with. To be called early: until then, programs that are started
/// inherit them. A second call finds none.
#[allow(unsafe_code)]
pub fn inherited() -> Vec<Inherited> {
    if TAKEN.swap(true, SeqCst) {
        return Vec::new();
    }
    match sd_notify::listen_fds_with_names() {
        Ok(descriptors) => descriptors
            .map(|(number, name)| {
                // SAFETY: the service manager opened it for this process (`LISTEN_PID` names it) and nothing here uses
                // numbers that it did not open, so that it has no other owner; it is given out once.
                let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
                Inherited { name, descriptor }
            })
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot take what the service manager kept");
            Vec::new()
        }
    }
}

/// Has the service manager keep a descriptor under a name; false if there is no service manager.
///
/// # Errors
/// It cannot be told.
pub fn keep(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    // Not watched by the service manager: the kernel would wake it for every request on a FUSE connection.
    tell(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}\n"), Some(descriptor))
}

/// Has the service manager close what it keeps under a name; false if there is no service manager.
///
/// # Errors
/// It cannot be told.
pub fn discard(name: &str) -> io::Result<bool> {
    tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), None)
}

fn tell(text: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<bool> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(false) };
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    let numbers: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    let text = [IoSlice::new(text.as_bytes())];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &text, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(true)
}
