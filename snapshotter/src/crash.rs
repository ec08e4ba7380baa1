//! What a crash tells: where it was, and nothing that was read.
//!
//! The message of a panic may quote what the program had in hand, and a core dump holds all of it, passwords of registries
//! included. So a panic is logged by its place, with its message only if that is a literal of the program, and the
//! process leaves no dump.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
    thread,
};

use nix::sys::prctl;
use tokio::task::JoinError;

/// What stands for a message that was put together when it was needed.
const WITHHELD: &str = "its message is withheld: it may quote what was read";

/// From now on crashes of this process tell no more than that.
///
/// # Errors
/// The kernel does not let the process be without dumps.
pub fn contain() -> nix::Result<()> {
    panic::set_hook(Box::new(log));
    prctl::set_dumpable(false)
}

/// Why a task gave nothing, for people.
pub(crate) fn told(error: &JoinError) -> &'static str {
    if error.is_panic() { "it panicked: the log says where" } else { "the daemon ends" }
}

fn log(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let (thread, backtrace) = (thread::current(), Backtrace::capture());
    let frames = matches!(backtrace.status(), BacktraceStatus::Captured).then(|| backtrace.to_string());
    let name = thread.name().unwrap_or("unnamed");
    tracing::error!(place, thread = name, frames, "panic: {}", message(info.payload()));
}

/// A message without arguments is as the program has it.
fn message(payload: &dyn Any) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or(WITHHELD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::{Level, captured::logged};

    #[test]
    fn a_panic_is_logged_by_its_place_without_what_it_quotes() {
        let before = panic::take_hook();
        contain().unwrap();
        assert!(!prctl::get_dumpable().unwrap());
        let log = logged(Level::Info, || {
            let read = String::from("hunter2");
            panic::catch_unwind(|| panic!("no number: {read}")).unwrap_err();
            panic::catch_unwind(|| panic!("a literal")).unwrap_err();
        });
        panic::set_hook(before);
        prctl::set_dumpable(true).unwrap();
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(!log.contains("hunter2") && log.contains(WITHHELD) && log.contains("a literal"), "{log}");
        assert!(log.lines().all(|line| line.contains("snapshotter/src/crash.rs:")), "{log}");
    }

    #[tokio::test]
    async fn a_task_that_panicked_is_not_quoted() {
        let error = tokio::spawn(async { panic!("{}", String::from("hunter2")) }).await.unwrap_err();
        assert!(error.to_string().contains("hunter2"), "which is why: {error}");
        assert_eq!(told(&error), "it panicked: the log says where");
    }
}
