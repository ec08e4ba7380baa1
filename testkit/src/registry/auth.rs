//! What a test registry asks for before it answers, and its token endpoint.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;
use url::form_urlencoded;

use super::{
    body::{self, Body},
    serve::State,
};

/// The kinds of authentication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Nothing is asked.
    #[default]
    None,
    /// A user and a password with each request.
    Basic {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token of the registry's own token endpoint (distribution's token authentication).
    Bearer {
        /// User and password that the endpoint asks for; anyone gets a token when `None`.
        login: Option<(String, String)>,
        /// How long a token is good for; `expires_in` says so in whole seconds.
        lifetime: Duration,
        /// Whether the endpoint takes POST (OAuth2); it answers 405 otherwise.
        post: bool,
        /// An identity token that is good instead of user and password.
        identity_token: Option<String>,
    },
}

/// A token that was given out.
#[derive(Debug, Clone)]
pub(super) struct Token {
    value: String,
    scope: String,
    expires: Instant,
}

/// `None` when the request may go on, else the answer that asks for credentials.
pub(super) fn challenge(state: &State, headers: &HeaderMap, repository: &str) -> Option<Response<Body>> {
    let auth = state.behaviour.lock().auth.clone();
    let authorization =
        headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    let scheme = state.scheme();
    match auth {
        Auth::None => None,
        Auth::Basic { user, password } => {
            let good = basic(authorization) == Some((user, password));
            (!good).then(|| unauthorized("Basic realm=\"test registry\""))
        }
        Auth::Bearer { .. } => {
            let scope = format!("repository:{repository}:pull");
            let value = authorization.strip_prefix("Bearer ").unwrap_or("");
            let now = Instant::now();
            let tokens = state.tokens.lock();
            let covers =
                |token: &Token| repository.is_empty() || token.scope.contains(&format!(":{repository}:"));
            let known = tokens.iter().find(|token| token.value == value);
            let good = known.is_some_and(|token| token.expires > now && covers(token));
            let error = if value.is_empty() { "" } else { ",error=\"invalid_token\"" };
            (!good).then(|| {
                let realm = format!("{scheme}://{}/token", state.address);
                unauthorized(&format!(
                    "Bearer realm=\"{realm}\",service=\"test registry\",scope=\"{scope}\"{error}"
                ))
            })
        }
    }
}

/// Answers at the token endpoint: GET with Basic credentials, or POST with a form.
pub(super) fn token(
    state: &State,
    method: &http::Method,
    headers: &HeaderMap,
    form: &[u8],
) -> Response<Body> {
    let Auth::Bearer { login, lifetime, post, identity_token } = state.behaviour.lock().auth.clone() else {
        return body::empty(StatusCode::NOT_FOUND);
    };
    if method == http::Method::POST && !post {
        return body::empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let field = |name: &str| {
        form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    let given = if method == http::Method::POST {
        field("username").zip(field("password"))
    } else {
        headers.get(header::AUTHORIZATION).and_then(|value| basic(value.to_str().ok()?))
    };
    let by_identity = identity_token.is_some() && field("refresh_token") == identity_token;
    if login.is_some() && given != login && !by_identity {
        return body::empty(StatusCode::UNAUTHORIZED);
    }
    let value = format!("token-{:016x}", rand::random::<u64>());
    let scope = field("scope").unwrap_or_default();
    state.tokens.lock().push(Token { value: value.clone(), scope, expires: Instant::now() + lifetime });
    let answer = json!({ "token": value, "access_token": value, "expires_in": lifetime.as_secs().max(1) });
    body::json(StatusCode::OK, &answer)
}

fn basic(authorization: &str) -> Option<(String, String)> {
    let decoded = STANDARD.decode(authorization.strip_prefix("Basic ")?).ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn unauthorized(challenge: &str) -> Response<Body> {
    let mut response = body::json(
        StatusCode::UNAUTHORIZED,
        &json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "log in" }] }),
    );
    if let Ok(value) = challenge.parse() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}
