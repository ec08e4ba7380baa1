//! Logins that the token service, or the host where it looks at passwords itself, refused for any scope and has not
//! taken since.
//!
//! They are tried after all others, so that one that has ended is not sent again for each image. Not less than that:
//! some hosts refuse a login for one repository that is good for another, which then keeps it.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::{Authorization, Demand, HostAuth, Slot, next_id};
use crate::credentials::Credentials;

/// More logins than these are not doubted at one time; the oldest doubt is forgotten.
const MAX_LOGINS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Doubted {
    /// The oldest first, and below which id authorizations are older than the doubt.
    logins: Mutex<VecDeque<(Credentials, u64)>>,
}

// === impl Doubted ===

impl Doubted {
    pub(super) fn add(&self, login: &Credentials) {
        let mut logins = self.logins.lock();
        // A doubt is as old as the first refusal: what was tried since is no better known by a second one.
        if !logins.iter().any(|(doubted, _)| doubted == login) {
            if logins.len() >= MAX_LOGINS {
                logins.pop_front();
            }
            logins.push_back((login.clone(), next_id()));
        }
    }

    pub(super) fn remove(&self, login: &Credentials) {
        self.logins.lock().retain(|(doubted, _)| doubted != login);
    }

    pub(super) fn contains(&self, login: &Credentials) -> bool {
        self.logins.lock().iter().any(|(doubted, _)| doubted == login)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.logins.lock().is_empty()
    }

    /// Whether `login` is doubted since `authorization` was made with it.
    fn since(&self, login: &Credentials, authorization: &Authorization) -> bool {
        let logins = self.logins.lock();
        logins.iter().any(|(doubted, since)| doubted == login && authorization.id < *since)
    }
}

// === impl HostAuth ===

impl HostAuth {
    /// Whether `authorization` is a password that was refused for another scope after the slot got it. It is looked
    /// for a better one then; a token has been looked at when it was given.
    pub(super) fn is_doubtful(&self, authorization: &Authorization, slot: &Slot, demand: &Demand) -> bool {
        if !matches!(demand, Demand::Basic) || self.doubted.is_empty() {
            return false;
        }
        slot.login_of(authorization).is_some_and(|login| {
            self.doubted.since(&login.credentials, authorization) && !slot.keeps(&login.credentials)
        })
    }

    /// The host answered a request that was sent with `used` as was hoped for. Where it looks at passwords itself, the
    /// password is doubted no more; a token service has said so before by giving a token.
    pub(crate) fn accepted(&self, used: &Authorization, scope: &super::Scope) {
        if self.doubted.is_empty() || !matches!(*self.demand.lock(), Some(Demand::Basic)) {
            return;
        }
        let slot = self.slot(scope);
        let Some(login) = slot.login_of(used) else { return };
        // The request may have been on its way when another was refused.
        if self.doubted.contains(&login.credentials) && !self.doubted.since(&login.credentials, used) {
            self.trust(&login.credentials, &slot);
        }
    }

    /// The login was taken for the slot's scope.
    pub(super) fn trust(&self, login: &Credentials, slot: &Slot) {
        if self.doubted.contains(login) {
            slot.keep(login);
            self.doubted.remove(login);
        }
    }
}

// === impl Slot ===

impl Slot {
    /// Stays with `login`, whatever other scopes of the host find: otherwise two repositories that need different
    /// logins would make each other's doubtful again and again.
    pub(super) fn keep(&self, login: &Credentials) {
        self.held.lock().kept = Some(login.clone());
    }

    pub(super) fn keeps(&self, login: &Credentials) -> bool {
        self.held.lock().kept.as_ref() == Some(login)
    }
}
