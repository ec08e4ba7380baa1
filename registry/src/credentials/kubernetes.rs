//! Image pull secrets of a Kubernetes cluster: secrets of the types `kubernetes.io/dockerconfigjson` and
//! `kubernetes.io/dockercfg`, listed once and watched from then on.
//!
//! Which pod an image is for is not known here, so the secrets of all namespaces that are read are one
//! keyring, with kubelet's rules of what matches ([`Keyring`]). The account needs the right to list and
//! watch secrets in them. What was seen last is used while the cluster cannot be reached.

mod access;
mod kubeconfig;
mod secret;
mod watch;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use self::secret::{Name, SecretType};
use super::{CredentialError, CredentialQuery, CredentialSource, Credentials, SourceKind, keyring::Keyring};

pub use access::{ClusterAccess, ClusterError};

/// Different credentials for one image that are tried. The namespaces share them: who may write secrets in one must
/// not be able to keep those of the others from being tried.
const MAX_CANDIDATES: usize = 16;

/// Secrets of a cluster as a source of credentials.
#[derive(Debug)]
pub struct KubernetesSecrets {
    known: Arc<Known>,
    /// Ended with this.
    _watches: Mutex<JoinSet<()>>,
}

/// What the watches have seen.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    logins: BTreeMap<(SecretType, Name), Vec<(String, Credentials)>>,
    /// Made of them when it is needed.
    keyring: Option<Arc<Keyring>>,
    /// Why a watch does not go on; `None` when it does again.
    troubles: BTreeMap<(SecretType, String), String>,
}

// === impl KubernetesSecrets ===

impl KubernetesSecrets {
    /// Starts to watch the secrets of `namespaces`, of all if there are none. The cluster need not be
    /// reachable yet. Must run inside a tokio runtime.
    pub fn start(access: ClusterAccess, namespaces: &[String]) -> Arc<Self> {
        let known = Arc::<Known>::default();
        let all = [String::new()];
        let namespaces = if namespaces.is_empty() { &all[..] } else { namespaces };
        let mut watches = JoinSet::new();
        for namespace in namespaces {
            for which in [SecretType::DockerConfigJson, SecretType::DockerCfg] {
                watches.spawn(watch::keep_watching(access.clone(), namespace.clone(), which, known.clone()));
            }
        }
        Arc::new(Self { known, _watches: Mutex::new(watches) })
    }
}

#[async_trait]
impl CredentialSource for KubernetesSecrets {
    fn describe(&self) -> String {
        "secrets of Kubernetes".to_owned()
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Kubernetes
    }

    async fn credentials(&self, query: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError> {
        Ok(self.candidates(query).await?.into_iter().next())
    }

    async fn candidates(&self, query: CredentialQuery<'_>) -> Result<Vec<Credentials>, CredentialError> {
        let keyring = self.known.keyring();
        let found = keyring.lookup_some(query.host, query.repository, MAX_CANDIDATES);
        match self.known.trouble() {
            Some(trouble) if found.is_empty() => Err(CredentialError::new(trouble)),
            _ => Ok(found),
        }
    }
}

// === impl Known ===

impl Known {
    /// `found` is all that there is of this type in `namespace`, an empty one being all of them.
    fn replace(&self, which: SecretType, namespace: &str, found: Vec<(Name, Vec<(String, Credentials)>)>) {
        let mut state = self.0.lock();
        let here = |name: &Name| namespace.is_empty() || name.namespace == namespace;
        state.logins.retain(|(other, name), _| *other != which || !here(name));
        state.logins.extend(found.into_iter().map(|(name, logins)| ((which, name), logins)));
        state.keyring = None;
    }

    /// A secret has changed; no logins if it is gone.
    fn change(&self, which: SecretType, name: Name, logins: Vec<(String, Credentials)>) {
        let mut state = self.0.lock();
        if logins.is_empty() {
            state.logins.remove(&(which, name));
        } else {
            state.logins.insert((which, name), logins);
        }
        state.keyring = None;
    }

    fn set_trouble(&self, which: SecretType, namespace: &str, trouble: Option<String>) {
        let (mut state, key) = (self.0.lock(), (which, namespace.to_owned()));
        match trouble {
            Some(trouble) => state.troubles.insert(key, trouble),
            None => state.troubles.remove(&key),
        };
    }

    fn trouble(&self) -> Option<String> {
        self.0.lock().troubles.values().next().cloned()
    }

    fn keyring(&self) -> Arc<Keyring> {
        let mut state = self.0.lock();
        if let Some(keyring) = &state.keyring {
            return keyring.clone();
        }
        let keyring = {
            let of = |((_, name), logins): (&(SecretType, Name), &Vec<(String, Credentials)>)| {
                let owner = Arc::<str>::from(name.namespace.as_str());
                logins.clone().into_iter().map(move |(key, login)| (owner.clone(), key, login))
            };
            Arc::new(Keyring::of_owners(state.logins.iter().flat_map(of)))
        };
        state.keyring = Some(keyring.clone());
        keyring
    }
}
