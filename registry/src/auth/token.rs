//! The token service's protocol (distribution, "Token Authentication" and "OAuth2").
//!
//! With credentials a POST form is tried first; services without it answer 404, 405, 401 or 400 and get a
//! GET with Basic authentication, as containerd does. Without credentials it is an anonymous GET.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Method, StatusCode, header};
use reqwest::RequestBuilder;
use serde::Deserialize;
use store::SourceErrorKind as Kind;
use url::Url;

use super::{Context, HostAuth, Scope};
use crate::{
    counters::Count,
    credentials::{Credentials, Secret},
    endpoint::Endpoint,
    error::Failure,
    exchange::same_origin,
};

/// What we call ourselves to token services.
const CLIENT_ID: &str = "starling";
/// A token without `expires_in` lives this long (distribution token specification).
const DEFAULT_LIFETIME: u64 = 60;
/// No lifetime is believed beyond this.
const MAX_LIFETIME: u64 = 24 * 3600;
/// The answer's size limit; tokens are a few kilobytes.
const MAX_ANSWER: u64 = 1 << 20;

/// What to ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) realm: &'a Url,
    pub(super) service: Option<&'a str>,
    pub(super) scope: &'a Scope,
}

/// An access token.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) value: Secret,
    pub(super) lifetime: Duration,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<f64>,
}

/// How the service was asked.
pub(super) enum Grant<'a> {
    Password(&'a str, &'a Secret),
    Refresh(&'a Secret),
}

/// The value of an `Authorization` header with Basic credentials.
pub(super) fn basic(username: &str, password: &Secret) -> Secret {
    Secret::new(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{}", password.expose()))))
}

/// Fetches a token.
pub(super) async fn fetch(
    auth: &HostAuth,
    request: Request<'_>,
    credentials: Option<&Credentials>,
    context: Context<'_>,
) -> Result<Token, Failure> {
    let (username, secret) = match credentials {
        Some(Credentials::Password { username, password }) => (username.as_str(), password),
        Some(Credentials::IdentityToken(token)) => ("", token),
        Some(Credentials::RegistryToken(_)) | None => return get(request, None, context).await,
    };
    if let Some(token) = auth.refresh.token(request, credentials, context).await? {
        return Ok(token);
    }
    let by_get = Some(basic(username, secret));
    if auth.get_only.load(Relaxed) {
        return get(request, by_get, context).await;
    }
    let grant = if username.is_empty() { Grant::Refresh(secret) } else { Grant::Password(username, secret) };
    match post(request, grant, context).await {
        Ok((token, refresh)) => {
            auth.refresh.remember(credentials, refresh);
            Ok(token)
        }
        Err(failure) => match failure.status.map(|status| status.as_u16()) {
            Some(400 | 401 | 404 | 405) => {
                let token = get(request, by_get, context).await?;
                auth.get_only.store(true, Relaxed);
                Ok(token)
            }
            _ => Err(failure),
        },
    }
}

pub(super) async fn post(
    request: Request<'_>,
    grant: Grant<'_>,
    context: Context<'_>,
) -> Result<(Token, Option<Secret>), Failure> {
    let scope = request.scope.0.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    let mut form = vec![("client_id", CLIENT_ID), ("scope", &scope)];
    form.extend(request.service.map(|service| ("service", service)));
    match grant {
        Grant::Password(username, password) => {
            form.extend([
                ("grant_type", "password"),
                ("username", username),
                ("password", password.expose()),
            ]);
        }
        Grant::Refresh(token) => {
            form.extend([("grant_type", "refresh_token"), ("refresh_token", token.expose())])
        }
    }
    let builder = context.transport.request(Method::POST, request.realm.clone()).form(&form);
    send(builder, request.realm, context).await
}

async fn get(
    request: Request<'_>,
    authorization: Option<Secret>,
    context: Context<'_>,
) -> Result<Token, Failure> {
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(request.service.map(|service| ("service", service)));
    query.extend(request.scope.0.iter().map(|scope| ("scope", scope.as_str())));
    let mut builder = context.transport.request(Method::GET, request.realm.clone()).query(&query);
    if let Some(authorization) = &authorization {
        builder = builder.header(header::AUTHORIZATION, authorization.expose());
    }
    let refused = |mut failure: Failure| {
        let denied = matches!(failure.status, Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN));
        if denied && authorization.is_none() {
            failure.error.message.push_str("; no credentials are known for it, log in with docker login");
        }
        failure
    };
    Ok(send(builder, request.realm, context).await.map_err(refused)?.0)
}

async fn send(
    builder: RequestBuilder,
    realm: &Url,
    context: Context<'_>,
) -> Result<(Token, Option<Secret>), Failure> {
    let Context { transport, endpoint, deadline, .. } = context;
    let builder = if same_origin(realm, &endpoint.base) { with_headers(builder, endpoint) } else { builder };
    let request = builder.build().map_err(|_| {
        Failure::fatal(Kind::Protocol, format!("{} names an unusable token service", endpoint.name))
    })?;
    endpoint.counters.add(Count::TokenRequest);
    let response = transport
        .send(request, deadline)
        .await
        .map_err(|failure| failure.while_doing("cannot get a token"))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = transport.body(response, endpoint).read_all(MAX_ANSWER, deadline).await?;
    if !status.is_success() {
        let after = crate::backoff::retry_after(&headers, std::time::SystemTime::now());
        // The service's explanation is not quoted: it may repeat what it was sent.
        let failure = Failure::status(realm, status, "", after);
        return Err(failure.while_doing(&format!("no token for {}", endpoint.name)));
    }
    read(&body).ok_or_else(|| Failure::doubtful(realm, "the token service's answer holds no token"))
}

fn with_headers(builder: RequestBuilder, endpoint: &Endpoint) -> RequestBuilder {
    builder.headers(endpoint.headers.clone())
}

fn read(body: &[u8]) -> Option<(Token, Option<Secret>)> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let value = answer.token.filter(|token| !token.is_empty()).or(answer.access_token)?;
    let seconds = match answer.expires_in {
        // The cast saturates; what is not a positive number means the default.
        Some(seconds) if seconds >= 1.0 => (seconds as u64).min(MAX_LIFETIME),
        _ => DEFAULT_LIFETIME,
    };
    let token = Token { value: Secret::new(value), lifetime: Duration::from_secs(seconds) };
    Some((token, answer.refresh_token.filter(|token| !token.is_empty()).map(Secret::new)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifetime(body: &str) -> Option<u64> {
        read(body.as_bytes()).map(|(token, _)| token.lifetime.as_secs())
    }

    #[test]
    fn reads_the_answers_of_token_services() {
        assert_eq!(lifetime(r#"{"token":"t"}"#), Some(60));
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":300,"issued_at":"x"}"#), Some(300));
        assert_eq!(lifetime(r#"{"token":"t","expires_in":-5}"#), Some(60));
        assert_eq!(lifetime(r#"{"token":"t","expires_in":1e300}"#), Some(MAX_LIFETIME));
        assert_eq!(lifetime(r#"{"token":""}"#), None);
        assert_eq!(lifetime("[]"), None);
        let (token, refresh) = read(br#"{"token":"","access_token":"a","refresh_token":"r"}"#).unwrap();
        assert_eq!((token.value.expose(), refresh.unwrap().expose()), ("a", "r"));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let (token, refresh) = read(br#"{"token":"planted","refresh_token":"planted"}"#).unwrap();
        assert!(
            !format!("{token:?}{refresh:?}{:?}", basic("u", &Secret::new("planted"))).contains("planted")
        );
    }
}
