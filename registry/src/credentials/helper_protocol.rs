//! Docker's credential helpers: programs named `docker-credential-<name>`.
//!
//! `get` takes a server's URL on standard input and prints `{"ServerURL","Username","Secret"}`; a helper
//! that knows nothing fails with a fixed message (docker/docker-credential-helpers). Whatever else a
//! helper prints is not repeated: it may be a secret.

use std::{process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use super::{CredentialError, Credentials, Secret};

/// The answer's size limit; tokens are a few kilobytes.
const MAX_ANSWER: u64 = 1 << 20;
/// The user name that marks the secret as an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
struct Answer {
    #[serde(default, rename = "Username")]
    username: String,
    #[serde(default, rename = "Secret")]
    secret: String,
}

/// Asks the helper `name` for the credentials of `server`.
pub(super) async fn get(
    name: &str,
    server: &str,
    limit: Duration,
) -> Result<Option<Credentials>, CredentialError> {
    if name.contains('/') || name.contains('\0') {
        return Err(CredentialError::new("the name of a credential helper must not hold a slash"));
    }
    run(&format!("docker-credential-{name}"), server, limit).await
}

/// Asks the helper at `program`, a name to be found through PATH or a path.
pub(super) async fn run(
    program: &str,
    server: &str,
    limit: Duration,
) -> Result<Option<Credentials>, CredentialError> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|cause| {
            CredentialError::new(format!(
                "cannot start the credential helper {program}; is it on the PATH of this process"
            ))
            .caused_by(cause)
        })?;
    let talk = timeout(limit, converse(&mut child, server)).await;
    let (succeeded, output) = talk
        .map_err(|_| {
            let seconds = limit.as_secs_f64();
            CredentialError::new(format!(
                "the credential helper {program} did not answer within {seconds:.1} s"
            ))
        })?
        .map_err(|cause| {
            CredentialError::new(format!("cannot talk to the credential helper {program}")).caused_by(cause)
        })?;
    if succeeded {
        return credentials(program, &output);
    }
    let said = String::from_utf8_lossy(&output);
    if said.trim().eq_ignore_ascii_case("credentials not found in native keychain") {
        return Ok(None);
    }
    Err(CredentialError::new(format!(
        "the credential helper {program} failed for {server}; run it by hand to see why"
    )))
}

async fn converse(child: &mut Child, server: &str) -> std::io::Result<(bool, Vec<u8>)> {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that answers without reading its input closes the pipe: not an error.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_ANSWER).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?.success(), output))
}

fn credentials(program: &str, output: &[u8]) -> Result<Option<Credentials>, CredentialError> {
    let answer: Answer = serde_json::from_slice(output).map_err(|_| {
        CredentialError::new(format!("the answer of the credential helper {program} is malformed"))
    })?;
    let secret = Secret::new(answer.secret);
    Ok(match answer.username.as_str() {
        "" if secret.is_empty() => None,
        TOKEN_USER => Some(Credentials::IdentityToken(secret)),
        _ => Some(Credentials::Password { username: answer.username, password: secret }),
    })
}
