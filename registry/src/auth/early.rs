//! Renewal of a token that is still good, in the background: a token service or a helper that hangs must not hold up
//! readers who need neither.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Context, Demand, Scope, Slot, login::Wanted};

use crate::backoff::spread;

/// After an early renewal that failed the next one waits for this time, up to twice this at random.
const PAUSE: Duration = Duration::from_secs(5);

// === impl Slot ===

impl Slot {
    /// Begins to renew the authorization, unless somebody does already.
    pub(super) fn renew_early(self: &Arc<Self>, demand: &Demand, scope: Scope, context: Context<'_>) {
        let Ok(renewing) = self.renewing.clone().try_lock_owned() else { return };
        // Another renewal may have ended since the caller looked.
        if !self.usable(None, Instant::now()).is_some_and(|(_, due)| due) {
            return;
        }
        let (slot, demand) = (self.clone(), demand.clone());
        let (endpoint, deadline) = (context.endpoint.clone(), context.deadline);
        let (repository, own) = (context.repository.to_owned(), context.scope.clone());
        tokio::spawn(async move {
            let _renewing = renewing;
            let (transport, endpoint) = (&*endpoint.transport, &endpoint);
            let context = Context { transport, endpoint, repository: &repository, scope: &own, deadline };
            // What a login got and is still good is not given up for what everybody gets.
            let wanted = Wanted { demand: &demand, scope: &scope, anonymous: slot.is_anonymous() };
            match endpoint.auth.log_in(&slot, wanted, context).await {
                Ok(Some(current)) => return drop(slot.hold(current)),
                // Nothing is said of anonymous access, so that who waits meanwhile looks for himself.
                Ok(None) => {}
                Err(failure) => {
                    // Who waits has it from the slot.
                    let _ = slot.fail(failure);
                }
            }
            slot.postpone();
        });
    }

    /// Leaves the authorization as it is for a while.
    fn postpone(&self) {
        if let Some(current) = &mut self.held.lock().current {
            current.renew = Instant::now() + spread(PAUSE);
        }
    }
}
