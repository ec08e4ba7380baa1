//! Where each host has a blob's bytes.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::{endpoint::EndpointId, exchange::Answer};

/// Where a host has the bytes.
#[derive(Debug, Clone)]
pub(super) enum Route {
    /// Each read asks the host: it answers itself, or its redirects hold for one request only.
    Host,
    /// At the end of a redirect.
    Redirected {
        /// Its address.
        target: Url,
        /// Whether all that led there was the host itself.
        trusted: bool,
        /// When it ends.
        until: Instant,
    },
}

/// The routes that are known; where a host has none, one reader finds out and the others wait.
#[derive(Debug, Default)]
pub(super) struct Routes(Mutex<Vec<(EndpointId, Route)>>);

// === impl Route ===

impl Route {
    pub(super) fn of(answer: &Answer) -> Self {
        match &answer.redirect {
            Some(redirect) if redirect.lifetime > Duration::ZERO => Self::Redirected {
                target: redirect.target.clone(),
                trusted: redirect.trusted,
                until: Instant::now() + redirect.lifetime,
            },
            _ => Self::Host,
        }
    }
}

// === impl Routes ===

impl Routes {
    pub(super) fn is_unknown(&self, host: EndpointId) -> bool {
        self.0.lock().iter().all(|(known, _)| *known != host)
    }

    pub(super) fn set(&self, host: EndpointId, route: Route) {
        let mut routes = self.0.lock();
        routes.retain(|(known, _)| *known != host);
        routes.push((host, route));
    }

    /// The remembered target, if it still holds, and whether all that led there was the host itself.
    pub(super) fn target(&self, host: EndpointId) -> Option<(Url, bool)> {
        let mut routes = self.0.lock();
        let position = routes.iter().position(|(known, _)| *known == host)?;
        let (_, Route::Redirected { target, trusted, until }) = routes.get(position)? else { return None };
        if Instant::now() < *until {
            return Some((target.clone(), *trusted));
        }
        routes.swap_remove(position);
        None
    }

    /// Forgets the target `refused`, unless a newer one has taken its place.
    pub(super) fn forget(&self, host: EndpointId, refused: &Url) {
        let is_it = |route: &Route| matches!(route, Route::Redirected { target, .. } if target == refused);
        self.0.lock().retain(|(known, route)| *known != host || !is_it(route));
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}
