//! What is said to a credential-provider plugin, and what it answers: one JSON object each.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    super::{Credentials, Secret},
    cache::{For, Found, Keep},
    config::Provider,
    duration,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: &'static str,
    api_version: &'a str,
    image: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    cache_key_type: String,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<HashMap<String, Login>>,
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// The question for an image.
pub(super) fn request(api_version: &str, image: &str) -> Vec<u8> {
    // Strings always become JSON; a plugin refuses an empty question.
    serde_json::to_vec(&Request { kind: "CredentialProviderRequest", api_version, image }).unwrap_or_default()
}

/// The logins of an answer with their keys, and how long they are kept; the error says what is wrong,
/// without quoting the answer.
pub(super) fn response(output: &[u8], provider: &Provider) -> Result<(Found, Option<Keep>), &'static str> {
    let response: Response = serde_json::from_slice(output).map_err(|_| "is malformed")?;
    if response.kind != "CredentialProviderResponse" || response.api_version != provider.api_version {
        return Err("is of another kind or version");
    }
    let which = match response.cache_key_type.as_str() {
        "Image" => For::Image,
        "Registry" => For::Registry,
        "Global" => For::Everything,
        _ => return Err("does not say for what it is"),
    };
    let time = match &response.cache_duration {
        Some(text) => duration::parse(text).ok_or("says no time for which it may be kept")?,
        None => provider.keep,
    };
    let login = |(key, login): (String, Login)| {
        let password = Secret::new(login.password);
        (key, Credentials::Password { username: login.username, password })
    };
    let logins: Vec<_> = response.auth.unwrap_or_default().into_iter().map(login).collect();
    let keep = (!time.is_zero()).then_some(Keep { which, time });
    Ok((Arc::from(logins), keep))
}
