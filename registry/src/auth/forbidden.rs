//! Answers 403, with which some registries mean that a token or its login has ended.
//!
//! The token is renewed with the same login first. Only if its successor is answered 403 too is the login passed over
//! for others. Each is done now and then only: most such answers mean what they say.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Authorization, Context, Current, Demand, HostAuth, Slot,
    login::{Login, Wanted},
};

use crate::backoff::spread;

/// A token is not renewed again for an answer 403 before this time, nor are all sources asked for other credentials, up
/// to twice this at random.
const PAUSE: Duration = Duration::from_secs(2);

/// Until when an answer 403 is no reason to do something.
#[derive(Debug, Default)]
pub(super) struct Forbidden {
    /// To renew the token with its login.
    renewed_until: Option<Instant>,
    /// To look for other logins.
    searched_until: Option<Instant>,
}

// === impl HostAuth ===

impl HostAuth {
    /// What to send after the answer 403 to a request that was sent with `used`. `new` says that `used` was got for
    /// this very request. `None` if nothing better is known, or was just looked for.
    pub(crate) async fn forbidden(
        &self,
        used: &Authorization,
        new: bool,
        context: Context<'_>,
    ) -> Option<Authorization> {
        let demand = self.demand.lock().clone()?;
        let slot = self.slot(context.scope);
        let _renewing = slot.renewing.lock().await;
        if let Some((authorization, _)) = slot.usable(Some(used.id), Instant::now()) {
            return Some(authorization);
        }
        if !new && matches!(demand, Demand::Bearer { .. }) && slot.may_have_ended(used.id) {
            let wanted = Wanted { demand: &demand, scope: context.scope, anonymous: slot.is_anonymous() };
            // What went wrong is less telling than the answer that is there.
            let renewed = self.log_in(&slot, wanted, context).await.ok().flatten()?;
            return Some(slot.hold(renewed));
        }
        let refused = slot.look_for_others(used.id)?;
        if let Some(login) = &refused {
            context.tell_refused(login);
        }
        let wanted = Wanted { demand: &demand, scope: context.scope, anonymous: false };
        // The same.
        let found = self.log_in(&slot, wanted, context).await.ok().flatten();
        slot.looked_for_others(refused.as_ref(), found)
    }
}

// === impl Slot ===

impl Slot {
    /// Whether the authorization `used` is a token whose renewal may help, and it is the time to try.
    fn may_have_ended(&self, used: u64) -> bool {
        let (mut held, now) = (self.held.lock(), Instant::now());
        let token = |current: &Current| current.authorization.id == used && !current.is_registry_token();
        let may = held.current.as_ref().is_some_and(token) && is_over(held.forbidden.renewed_until, now);
        if may {
            held.forbidden.renewed_until = Some(pause_from(now));
        }
        may
    }

    /// Passes over the login of the authorization `used`, while others are looked for; the login, or
    /// nothing for an anonymous one. `None` if it is not the time to look.
    fn look_for_others(&self, used: u64) -> Option<Option<Login>> {
        let (mut held, now) = (self.held.lock(), Instant::now());
        if !is_over(held.forbidden.searched_until, now) {
            return None;
        }
        let login = held.current.as_ref().filter(|current| current.authorization.id == used)?.login.clone();
        held.forbidden.searched_until = Some(pause_from(now));
        held.refused.add(login.as_ref().map(|login| &login.credentials), now);
        Some(login)
    }

    /// What was found instead of `refused`; if that is nothing, `refused` stays in use.
    fn looked_for_others(&self, refused: Option<&Login>, found: Option<Current>) -> Option<Authorization> {
        let mut held = self.held.lock();
        match found {
            Some(current) => {
                let authorization = current.authorization.clone();
                held.worked = current.login.clone();
                held.current = Some(current);
                Some(authorization)
            }
            None => {
                held.refused.forgive(refused.map(|login| &login.credentials));
                None
            }
        }
    }
}

fn is_over(until: Option<Instant>, now: Instant) -> bool {
    until.is_none_or(|until| now >= until)
}

fn pause_from(now: Instant) -> Instant {
    now + spread(PAUSE)
}
