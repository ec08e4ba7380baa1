//! One request and its final answer: authentication and redirects, without retries.
//!
//! Redirects are followed here and not by the HTTP library, because the final target is remembered and
//! because credentials and configured headers go to the registry only: once a chain has left the
//! registry's origin (scheme, host and port) nothing of ours is sent again, even if it comes back.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::Response;
use store::SourceErrorKind as Kind;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::{
    auth::{Authorization, Context, Scope},
    backoff::retry_after,
    challenge::Challenge,
    counters::Count,
    endpoint::Endpoint,
    error::{Failure, explanation},
    expiry,
    payload::Payload,
    transport::{Body, Transport, discard},
};

/// Chains longer than this are taken for loops (the limit of browsers and of containerd).
const MAX_HOPS: usize = 10;
/// One request is tried with that many logins more than the first.
const MAX_LOGINS: usize = 8;
/// A longer `Location` is refused.
const MAX_LOCATION: usize = 16 * 1024;
/// At most this much of an error's body is read for its explanation.
const MAX_EXPLANATION: u64 = 64 * 1024;

/// A request to a registry.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub(crate) endpoint: &'a Arc<Endpoint>,
    pub(crate) repository: &'a str,
    pub(crate) scope: &'a Scope,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) deadline: Instant,
}

/// The answer at the end of a chain of redirects; its status may be an error.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Body,
    /// Where the answer came from, if not from the URL that was asked.
    pub(crate) redirect: Option<Redirect>,
    /// Whether the registry itself answered.
    pub(crate) trusted: bool,
}

/// The end of a chain of redirects.
#[derive(Debug, Clone)]
pub(crate) struct Redirect {
    pub(crate) target: Url,
    /// How long the whole chain holds.
    pub(crate) lifetime: Duration,
    /// Whether the chain never left the registry, so that what is ours may be sent to its end.
    pub(crate) trusted: bool,
}

/// Whether two URLs have the same scheme, host and port.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host(), a.port_or_known_default()) == (b.scheme(), b.host(), b.port_or_known_default())
}

// === impl Transport ===

impl Transport {
    /// Sends `call`, authenticated, and follows redirects.
    pub(crate) async fn exchange(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let mut url = call.url.clone();
        let (mut trusted, mut lifetime, mut redirected) = (true, Duration::MAX, false);
        for _ in 0..=MAX_HOPS {
            let response = if trusted {
                self.send_authorized(call, &url).await?
            } else {
                self.send_bare(call, &url).await?
            };
            let Some(target) = location(call, &url, &response)? else {
                let redirect = redirected.then_some(Redirect { target: url, lifetime, trusted });
                return Ok(Answer { body: self.body(response, call.endpoint), redirect, trusted });
            };
            call.endpoint.counters.add(Count::Redirect);
            let left = expiry::lifetime(
                &target,
                response.headers(),
                SystemTime::now(),
                self.config.redirect_lifetime,
            );
            (lifetime, redirected) = (lifetime.min(left), true);
            trusted = trusted && same_origin(&target, &call.endpoint.base);
            discard(response);
            url = target;
        }
        let message = format!("{} sends requests on more than {MAX_HOPS} times", call.endpoint.name);
        Err(Failure::fatal(Kind::Protocol, message))
    }

    /// Sends `call` to `target`, the remembered end of an earlier chain; `trusted` says whether that never left the
    /// registry.
    pub(crate) async fn exchange_at(
        &self,
        call: &Call<'_>,
        target: &Url,
        trusted: bool,
    ) -> Result<Answer, Failure> {
        let trusted = trusted && same_origin(target, &call.endpoint.base);
        let response = if trusted {
            self.send_authorized(call, target).await?
        } else {
            self.send_bare(call, target).await?
        };
        Ok(Answer { body: self.body(response, call.endpoint), redirect: None, trusted })
    }

    /// Sends `call` to a URL of the registry itself, again with other credentials as
    /// long as they are refused and others are known.
    async fn send_authorized(&self, call: &Call<'_>, url: &Url) -> Result<Response, Failure> {
        let Call { endpoint, repository, scope, deadline, .. } = *call;
        let context = Context { transport: self, endpoint, repository, scope, deadline };
        let mut used = endpoint.auth.authorization(context).await?;
        let mut attempt = 0;
        loop {
            let response = self.send_with(call, url, used.as_ref()).await?;
            let better = match (response.status(), challenge(&response), &used) {
                _ if attempt == MAX_LOGINS => None,
                (StatusCode::UNAUTHORIZED, Some(challenge), _) => {
                    endpoint.counters.add(Count::Unauthorized);
                    endpoint.auth.challenged(challenge, used.as_ref(), attempt > 0, context).await?
                }
                (StatusCode::UNAUTHORIZED, None, Some(used)) => {
                    endpoint.counters.add(Count::Unauthorized);
                    endpoint.auth.unchallenged(used, attempt > 0, context).await?
                }
                (StatusCode::FORBIDDEN, _, Some(used)) => {
                    endpoint.auth.forbidden(used, attempt > 0, context).await
                }
                (status, _, Some(used)) if status.is_success() || status.is_redirection() => {
                    endpoint.auth.accepted(used, scope);
                    None
                }
                _ => None,
            };
            let Some(better) = better else { return Ok(response) };
            discard(response);
            (used, attempt) = (Some(better), attempt + 1);
        }
    }

    async fn send_with(
        &self,
        call: &Call<'_>,
        url: &Url,
        authorization: Option<&Authorization>,
    ) -> Result<Response, Failure> {
        let mut headers = call.endpoint.headers.clone();
        headers.extend(call.headers.clone());
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.header.clone());
        }
        let response = self.send_headers(call, url, headers).await?;
        call.endpoint.answered(url);
        Ok(response)
    }

    async fn send_bare(&self, call: &Call<'_>, url: &Url) -> Result<Response, Failure> {
        self.send_headers(call, url, call.headers.clone()).await
    }

    async fn send_headers(
        &self,
        call: &Call<'_>,
        url: &Url,
        mut headers: HeaderMap,
    ) -> Result<Response, Failure> {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let builder = self.request(call.method.clone(), url.clone()).headers(headers);
        call.endpoint.counters.add(Count::Request);
        match &call.payload {
            Payload::Empty => self.send(build(builder, url)?, call.deadline).await,
            payload => payload.send(self, builder, url, call).await,
        }
    }
}

pub(crate) fn build(builder: reqwest::RequestBuilder, url: &Url) -> Result<reqwest::Request, Failure> {
    builder.build().map_err(|error| {
        let why = error.without_url();
        Failure::fatal(Kind::Protocol, format!("{}: cannot make a request: {why}", crate::error::shown(url)))
    })
}

fn challenge(response: &Response) -> Option<Challenge> {
    Challenge::best(response.headers().get_all(header::WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes))
}

/// Where a redirect leads; `None` if the answer is not one that may be followed.
fn location(call: &Call<'_>, url: &Url, response: &Response) -> Result<Option<Url>, Failure> {
    let follows = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if !follows || !matches!(call.method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let refuse = |why: &str| Failure::doubtful(url, format!("the redirect {why}"));
    let value = response.headers().get(header::LOCATION).ok_or_else(|| refuse("does not say where to"))?;
    if value.len() > MAX_LOCATION {
        return Err(refuse("is too long"));
    }
    let text = value.to_str().map_err(|_| refuse("is not a URL"))?;
    let mut target = url.join(text).map_err(|_| refuse("is not a URL"))?;
    if !matches!(target.scheme(), "http" | "https") || target.host().is_none() {
        return Err(refuse("does not lead to an HTTP server"));
    }
    target.set_fragment(None);
    Ok(Some(target))
}

// === impl Answer ===

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.body.status()
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&HeaderValue> {
        self.body.headers().get(name)
    }

    /// The answer itself if its status is in `expected`, else the failure it means.
    pub(crate) async fn expect(self, expected: &[u16]) -> Result<Self, Failure> {
        if expected.contains(&self.status().as_u16()) { Ok(self) } else { Err(self.into_failure().await) }
    }

    /// The failure that the answer's status means.
    pub(crate) async fn into_failure(self) -> Failure {
        let (status, url, trusted) = (self.status(), self.body.url().clone(), self.trusted);
        let after = retry_after(self.body.headers(), SystemTime::now());
        let values = self.body.headers().get_all(header::WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes);
        let complaint = match Challenge::best(values) {
            Some(Challenge::Bearer(bearer)) => bearer.error,
            _ => None,
        };
        // What a storage service says may hold parts of the signature.
        let mut text = String::new();
        if trusted {
            let limit = Duration::from_secs(2);
            let read = self.body.read_all(MAX_EXPLANATION, Instant::now() + limit);
            if let Ok(Ok(body)) = timeout(limit, read).await {
                text = explanation(&body);
            }
            if let Some(complaint) = complaint {
                let complaint: String = complaint.chars().filter(|c| !c.is_control()).take(100).collect();
                text = if text.is_empty() { complaint } else { format!("{complaint}, {text}") };
            }
        } else {
            self.body.discard();
        }
        Failure::status(&url, status, &text, after)
    }
}
