//! How the cluster's API is reached: a kubeconfig file, or the service account of the pod we are in.
//!
//! Both are read again for each list and each watch, so that a token or certificate may be replaced.

use std::{
    env, io,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use reqwest::{Certificate, Client, ClientBuilder, Identity, redirect::Policy};
use url::Url;

use super::kubeconfig::{self, Cluster, User};
use crate::{aside::aside, credentials::Secret, error::root_cause, regular_file};

/// Where a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A watch is silent for as long as nothing changes, but the server ends it itself after some minutes.
const SILENCE: Duration = Duration::from_secs(600);

/// Where it is written how to reach the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterAccess {
    /// In this kubeconfig file, which need not be there yet.
    Kubeconfig(PathBuf),
    /// In the environment and the service account of a pod.
    ServiceAccount,
}

/// The cluster cannot be reached, or not like that.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ClusterError {
    message: String,
    #[source]
    cause: Option<io::Error>,
}

/// A client of the API.
pub(super) struct Api {
    client: Client,
    base: Url,
    token: Option<Secret>,
}

// === impl ClusterAccess ===

impl ClusterAccess {
    /// What other clients would use: the first file of `$KUBECONFIG`, else `~/.kube/config`, else the service
    /// account of the pod.
    pub fn from_environment() -> Self {
        let named = env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty());
        let named =
            named.and_then(|paths| env::split_paths(&paths).find(|path| !path.as_os_str().is_empty()));
        let home = || Some(env::home_dir()?.join(".kube/config")).filter(|path| path.exists());
        named.or_else(home).map_or(Self::ServiceAccount, Self::Kubeconfig)
    }

    /// Reads what is written there, on a thread that may wait.
    pub(super) async fn open_aside(&self) -> Result<Api, ClusterError> {
        let (access, failed) = (self.clone(), |error: io::Error| ClusterError::new(error.to_string()));
        aside(move || access.open()).await.map_err(failed)?
    }

    fn open(&self) -> Result<Api, ClusterError> {
        let (cluster, user) = match self {
            Self::Kubeconfig(path) => kubeconfig::read(&text(path)?, path)?,
            Self::ServiceAccount => service_account()?,
        };
        // Paths in a kubeconfig are relative to it.
        let near = match self {
            Self::Kubeconfig(path) => path.parent().unwrap_or("".as_ref()),
            Self::ServiceAccount => Path::new(""),
        };
        Api::new(&cluster, &user, near)
    }
}

fn service_account() -> Result<(Cluster, User), ClusterError> {
    let missing = || ClusterError::new("no kubeconfig is known, and this is no pod of a cluster".to_owned());
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty()).ok_or_else(missing);
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let directory = Path::new(SERVICE_ACCOUNT);
    let cluster = Cluster::new(format!("https://{host}:{port}"), directory.join("ca.crt"));
    Ok((cluster, User { token_file: Some(directory.join("token")), ..User::default() }))
}

// === impl Api ===

impl Api {
    fn new(cluster: &Cluster, user: &User, near: &Path) -> Result<Self, ClusterError> {
        let base = Url::parse(&cluster.server)
            .ok()
            .filter(|base| matches!(base.scheme(), "https" | "http") && base.has_host())
            .ok_or_else(|| ClusterError::new("the cluster's server is not a URL".to_owned()))?;
        if base.scheme() == "http" && !crate::endpoint::is_loopback(&base) {
            return Err(ClusterError::new("secrets of a cluster are not read in clear text".to_owned()));
        }
        let mut builder = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            .tcp_keepalive(Duration::from_secs(30));
        if crate::endpoint::is_loopback(&base) {
            builder = builder.no_proxy();
        }
        builder = with_authority(builder, cluster, near)?;
        builder = with_identity(builder, user, near)?;
        let client =
            builder.build().map_err(|_| ClusterError::new("cannot set up TLS for the cluster".to_owned()))?;
        let token = match (&user.token, &user.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => Some(text(&near.join(path))?.trim().to_owned()),
            (None, None) => None,
        };
        Ok(Self { client, base, token: token.map(Secret::new) })
    }

    /// Asks for secrets: `query` tells which, and whether they are to be listed or watched.
    pub(super) async fn secrets(
        &self,
        namespace: &str,
        query: &[(&str, &str)],
    ) -> Result<reqwest::Response, ClusterError> {
        let mut url = self.base.clone();
        {
            let wrong = |()| ClusterError::new("the cluster's server is not a URL".to_owned());
            let mut path = url.path_segments_mut().map_err(wrong)?;
            path.pop_if_empty().extend(["api", "v1"]);
            if !namespace.is_empty() {
                path.extend(["namespaces", namespace]);
            }
            path.push("secrets");
        }
        let mut request = self.client.get(url).query(query).header(http::header::ACCEPT, "application/json");
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(|_| {
                ClusterError::new("the cluster's token holds what no header can carry".to_owned())
            })?;
            value.set_sensitive(true);
            request = request.header(http::header::AUTHORIZATION, value);
        }
        let response = request.send().await.map_err(ClusterError::transport)?;
        match response.status().as_u16() {
            200 => Ok(response),
            410 => Err(ClusterError::new("what was known of the cluster is too old".to_owned())),
            status @ (401 | 403) => Err(ClusterError::new(format!(
                "the cluster does not let us list and watch secrets (status {status})"
            ))),
            status => Err(ClusterError::new(format!("the cluster answered with status {status}"))),
        }
    }
}

fn with_authority(
    builder: ClientBuilder,
    cluster: &Cluster,
    near: &Path,
) -> Result<ClientBuilder, ClusterError> {
    let pem = match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
        (Some(data), _) => decoded(data)?,
        (None, Some(path)) => bytes(&near.join(path))?,
        (None, None) => return Ok(builder),
    };
    let unusable =
        || ClusterError::new("the cluster's certificate authority is no PEM certificate".to_owned());
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|_| unusable())?;
    if certificates.is_empty() {
        return Err(unusable());
    }
    // A cluster's own authority is the only one that may vouch for it.
    Ok(builder.tls_certs_only(certificates))
}

fn with_identity(builder: ClientBuilder, user: &User, near: &Path) -> Result<ClientBuilder, ClusterError> {
    let read = |data: &Option<String>, path: &Option<PathBuf>| match (data, path) {
        (Some(data), _) => decoded(data).map(Some),
        (None, Some(path)) => bytes(&near.join(path)).map(Some),
        (None, None) => Ok(None),
    };
    let certificate = read(&user.client_certificate_data, &user.client_certificate)?;
    let key = read(&user.client_key_data, &user.client_key)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let pem = [certificate.as_slice(), b"\n", &key].concat();
            let identity = Identity::from_pem(&pem).map_err(|_| {
                ClusterError::new("the client certificate for the cluster and its key are no PEM".to_owned())
            })?;
            Ok(builder.identity(identity))
        }
        (None, None) => Ok(builder),
        _ => {
            Err(ClusterError::new("a client certificate for the cluster and its key go together".to_owned()))
        }
    }
}

fn decoded(data: &str) -> Result<Vec<u8>, ClusterError> {
    let wrong = |_| ClusterError::new("a certificate or key in the kubeconfig is no base64".to_owned());
    BASE64_STANDARD.decode(data.trim()).map_err(wrong)
}

fn bytes(path: &Path) -> Result<Vec<u8>, ClusterError> {
    let failed = |cause| {
        let message = format!("cannot read {}, which says how to reach the cluster", path.display());
        ClusterError { message, cause: Some(cause) }
    };
    let bytes = regular_file::read(path, kubeconfig::MAX_FILE + 1).map_err(failed)?;
    if bytes.len() as u64 > kubeconfig::MAX_FILE {
        return Err(ClusterError::new(format!("{} is too large", path.display())));
    }
    Ok(bytes)
}

fn text(path: &Path) -> Result<String, ClusterError> {
    String::from_utf8(bytes(path)?).map_err(|_| ClusterError::new(format!("{} is not text", path.display())))
}

// === impl ClusterError ===

impl ClusterError {
    pub(super) fn new(message: String) -> Self {
        Self { message, cause: None }
    }

    /// The cluster could not be asked, or its answer broke off.
    pub(super) fn transport(error: reqwest::Error) -> Self {
        Self::new(format!("cannot reach the cluster: {}", root_cause(&error.without_url())))
    }
}

// === impl Cluster ===

impl Cluster {
    fn new(server: String, authority: PathBuf) -> Self {
        Self {
            server,
            certificate_authority: Some(authority),
            certificate_authority_data: None,
            insecure_skip_tls_verify: None,
        }
    }
}
