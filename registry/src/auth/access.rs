//! With what a host lets us read, for people: never a secret.

use super::{HostAuth, Scope};

/// With what a host lets us read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It has not asked for anything.
    Open,
    /// It gives a token to everybody.
    Anonymous,
    /// With credentials.
    Login {
        /// Who gave them, as [`CredentialSource::describe`](crate::CredentialSource::describe) has it.
        source: String,
        /// What they are, without the secret.
        credentials: String,
    },
    /// It asks for credentials, and none that are known are good.
    Refused,
}

// === impl HostAuth ===

impl HostAuth {
    /// With what the last read of this scope was let through.
    pub(crate) fn access(&self, scope: &Scope) -> Access {
        if self.demand.lock().is_none() {
            return Access::Open;
        }
        let slot = self.slots.lock().get(scope).cloned();
        let login = slot.and_then(|slot| slot.held.lock().current.as_ref().map(|held| held.login.clone()));
        match login {
            None => Access::Refused,
            Some(None) => Access::Anonymous,
            Some(Some(login)) => {
                Access::Login { source: login.source.describe(), credentials: login.credentials.describe() }
            }
        }
    }
}
