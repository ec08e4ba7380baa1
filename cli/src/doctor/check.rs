//! What one look at the machine gave.

use serde::Serialize;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) state: State,
    /// What was found.
    pub(super) found: String,
    /// What to do about it; nothing if all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<Remedy>,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    /// Something is worse than it could be.
    Warning,
    /// Nothing is lazy, or nothing works, before this is changed.
    Failure,
    /// It was not looked at, or does not matter here.
    Skipped,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Remedy {
    /// In words.
    pub(super) what: String,
    /// The lines to write, or the commands to run, exactly.
    pub(super) lines: Vec<String>,
}

// === impl Check ===

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), remedy: None }
    }

    pub(super) fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, state: State::Skipped, found: why.into(), remedy: None }
    }

    pub(super) fn warning(name: &'static str, found: impl Into<String>, remedy: Remedy) -> Self {
        Self { name, state: State::Warning, found: found.into(), remedy: Some(remedy) }
    }

    pub(super) fn failure(name: &'static str, found: impl Into<String>, remedy: Remedy) -> Self {
        Self { name, state: State::Failure, found: found.into(), remedy: Some(remedy) }
    }
}

// === impl State ===

impl State {
    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
            Self::Skipped => "skipped",
        }
    }
}

// === impl Remedy ===

impl Remedy {
    /// Words alone.
    pub(super) fn say(what: impl Into<String>) -> Self {
        Self { what: what.into(), lines: Vec::new() }
    }

    /// Commands to run.
    pub(super) fn run(commands: &[&str]) -> Self {
        Self::new("run", commands.iter().map(|command| (*command).to_owned()).collect())
    }

    pub(super) fn new(what: impl Into<String>, lines: Vec<String>) -> Self {
        Self { what: what.into(), lines }
    }
}
