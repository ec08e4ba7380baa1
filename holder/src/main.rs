//! `starling-holder`: keeps descriptors for a daemon that comes and goes, and starts it again.
//!
//! It is the service manager's side of systemd's descriptor store and no more: the daemon sends a descriptor with
//! `FDSTORE=1` to `$NOTIFY_SOCKET`, and its successor finds it by `$LISTEN_FDS` and `$LISTEN_FDNAMES`. What the
//! descriptors are, it does not know; nothing in it depends on a version of the daemon, so that it need never be
//! replaced, which would cost the descriptors.
//!
//! Two forms. With a program, it runs it and starts it again whenever it ends; with `--keep`, it only keeps, for a holder
//! that runs where it can be killed (`--keeper`): in a pod.

mod arguments;
mod child;
mod hold;
mod message;
mod outside;
mod restart;
mod shelf;
mod socket;
mod spared;

use std::{io, process::ExitCode};

use self::{
    arguments::{Arguments, Task, USAGE},
    hold::Holder,
};

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("starling-holder: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("starling-holder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<u8> {
    let Arguments { socket, task } = arguments;
    match task {
        Task::Help => {
            println!("{USAGE}");
            Ok(0)
        }
        Task::Version => {
            println!("starling-holder v{}", env!("CARGO_PKG_VERSION"));
            Ok(0)
        }
        Task::Keep { outside } => {
            let socket = std::path::absolute(socket)?;
            if let Some(process) = outside {
                if socket::answers(&socket) {
                    return Ok(0);
                }
                outside::join(&process)?;
                return outside::in_background(|| Holder::keep(&socket), Holder::run);
            }
            Holder::keep(&socket)?.run()
        }
        Task::Run { keeper, command } => {
            Holder::supervise(&std::path::absolute(socket)?, keeper, command)?.run()
        }
    }
}

/// An error that says what was being done.
fn doing<E: Into<io::Error>>(what: impl std::fmt::Display) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let error: io::Error = error.into();
        io::Error::new(error.kind(), format!("cannot {what}: {error}"))
    }
}

/// One line on stderr, as all that is to be said is.
fn say(what: impl std::fmt::Display) {
    eprintln!("starling-holder: {what}");
}
