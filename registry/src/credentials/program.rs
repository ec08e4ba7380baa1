//! Running a program that knows credentials: its input on standard input, its answer on standard output.
//!
//! Time and size of the answer are bounded, and what the program prints is never repeated in a message:
//! it may be a secret.

use std::{ffi::OsStr, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use super::{CredentialError, Secret};

/// The answer's size limit; tokens are a few kilobytes.
const MAX_ANSWER: u64 = 1 << 20;

/// A program to run once.
#[derive(Debug)]
pub(super) struct Program<'a> {
    /// What it is to people, such as `credential helper`.
    pub(super) what: &'static str,
    /// Its path, or a name to be found through PATH.
    pub(super) path: &'a OsStr,
    pub(super) arguments: &'a [String],
    /// Variables beside this process' own.
    pub(super) environment: &'a [(String, Secret)],
    pub(super) limit: Duration,
}

/// What a program answered.
pub(super) struct Answer {
    pub(super) succeeded: bool,
    pub(super) output: Vec<u8>,
}

// === impl Program ===

impl Program<'_> {
    /// Runs it with `input`.
    pub(super) async fn run(&self, input: &[u8]) -> Result<Answer, CredentialError> {
        let (what, path) = (self.what, self.path.display());
        let mut child = Command::new(self.path)
            .args(self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value.expose())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|cause| {
                CredentialError::new(format!(
                    "cannot start the {what} {path}; is it there, and on the PATH of this process"
                ))
                .caused_by(cause)
            })?;
        let talk = timeout(self.limit, converse(&mut child, input)).await;
        talk.map_err(|_| {
            let seconds = self.limit.as_secs_f64();
            CredentialError::new(format!("the {what} {path} did not answer within {seconds:.1} s"))
        })?
        .map_err(|cause| CredentialError::new(format!("cannot talk to the {what} {path}")).caused_by(cause))
    }
}

async fn converse(child: &mut Child, input: &[u8]) -> std::io::Result<Answer> {
    if let Some(mut stdin) = child.stdin.take() {
        // A program that answers without reading its input closes the pipe: not an error.
        let _ = stdin.write_all(input).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_ANSWER).read_to_end(&mut output).await?;
    }
    Ok(Answer { succeeded: child.wait().await?.success(), output })
}

/// Makes a program of a shell script, for tests.
#[cfg(test)]
pub(super) fn script(path: &std::path::Path, script: &str) {
    // Another process writes the program: a descriptor of ours, open for writing and inherited by a
    // child of another test, would make its start fail with "text file busy".
    let source = path.with_extension("source");
    std::fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
    let status = std::process::Command::new("install").arg("-m755").arg(&source).arg(path).status().unwrap();
    assert!(status.success());
}
