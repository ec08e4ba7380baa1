//! Docker's credential helpers: programs named `docker-credential-<name>`.
//!
//! `get` takes a server's URL on standard input and prints `{"ServerURL","Username","Secret"}`; a helper
//! that knows nothing fails with a fixed message (docker/docker-credential-helpers).

use std::time::Duration;

use serde::Deserialize;

use super::{CredentialError, Credentials, Secret, program::Program};

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

/// Asks the helper at `path`, a name to be found through PATH or a path.
pub(super) async fn run(
    path: &str,
    server: &str,
    limit: Duration,
) -> Result<Option<Credentials>, CredentialError> {
    let program = Program {
        what: "credential helper",
        path: path.as_ref(),
        arguments: &["get".to_owned()],
        environment: &[],
        limit,
    };
    let answer = program.run(server.as_bytes()).await?;
    if answer.succeeded {
        return credentials(path, &answer.output);
    }
    let said = String::from_utf8_lossy(&answer.output);
    if said.trim().eq_ignore_ascii_case("credentials not found in native keychain") {
        return Ok(None);
    }
    Err(CredentialError::new(format!(
        "the credential helper {path} failed for {server}; run it by hand to see why"
    )))
}

fn credentials(path: &str, output: &[u8]) -> Result<Option<Credentials>, CredentialError> {
    let answer: Answer = serde_json::from_slice(output).map_err(|_| {
        CredentialError::new(format!("the answer of the credential helper {path} is malformed"))
    })?;
    let secret = Secret::new(answer.secret);
    Ok(match answer.username.as_str() {
        "" if secret.is_empty() => None,
        TOKEN_USER => Some(Credentials::IdentityToken(secret)),
        _ => Some(Credentials::Password { username: answer.username, password: secret }),
    })
}
