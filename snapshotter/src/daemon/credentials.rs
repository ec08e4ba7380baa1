//! Where credentials come from, in the order in which they are asked: pulls through the CRI proxy, kubelet's credential
//! providers, Docker's configuration, secrets of Kubernetes, our own configuration; anonymous access is tried last.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use registry::{
    CredentialSource, DockerConfig, KubeletPlugins, PasswordFile, RememberedCredentials, StaticCredentials,
};

use crate::{
    config::{Config, CredentialPlaces, HostLogin},
    cri::{DEFAULT_SERVICE, ImageService},
    flags::Flags,
};

/// The sources, and the proxy that feeds the first of them.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) sources: Vec<Arc<dyn CredentialSource>>,
    pub(super) images: Option<ImageService>,
}

/// Calls of kubelet would be passed on to the daemon itself, again and again.
#[derive(Debug, thiserror::Error)]
#[error(
    "image_service_path of [cri_keychain] is {}, where this daemon listens itself: name the socket of containerd's image service",
    .0.display()
)]
pub struct CallsItself(PathBuf);

// === impl Credentials ===

impl Credentials {
    /// What the configuration asks for. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// The proxy would call itself.
    pub(super) fn open(config: &Config, flags: &Flags) -> Result<Self, CallsItself> {
        let mut sources: Vec<Arc<dyn CredentialSource>> = Vec::new();
        let mut images = None;
        let (cri, places) = (&config.cri_keychain, &config.credentials);
        if cri.enable_keychain {
            let service = cri.image_service_path.as_deref().unwrap_or(DEFAULT_SERVICE.as_ref());
            let own = [Some(flags.address.as_path()), cri.listen_path.as_deref()];
            if own.into_iter().flatten().any(|own| is_same_socket(own, service)) {
                return Err(CallsItself(service.to_owned()));
            }
            let directory = flags.root.join("credentials");
            let remembered = RememberedCredentials::open(&directory, cri.max_age_sec.duration());
            remembered.purge_regularly();
            images = Some(ImageService::new(service, Arc::clone(&remembered)));
            sources.push(remembered);
        }
        sources.extend(kubelet(places));
        sources.extend(docker(places));
        sources.extend(secrets(config));
        sources.extend(own(places));
        Ok(Self { sources, images })
    }
}

/// The sources that need neither the daemon's own state nor a cluster, in the same order.
pub(super) fn of_files(config: &Config) -> Vec<Arc<dyn CredentialSource>> {
    let places = &config.credentials;
    kubelet(places).into_iter().chain(docker(places)).chain(own(places)).collect()
}

/// Whether two paths mean one socket, which need not be there.
fn is_same_socket(a: &Path, b: &Path) -> bool {
    let place = |path: &Path| {
        let directory = path.parent().and_then(|directory| fs::canonicalize(directory).ok());
        directory.zip(path.file_name()).map(|(directory, name)| directory.join(name))
    };
    a == b || place(a).is_some_and(|a| Some(a) == place(b))
}

fn kubelet(places: &CredentialPlaces) -> Option<Arc<dyn CredentialSource>> {
    match (&places.kubelet_config, &places.kubelet_bin_dir) {
        (Some(config), Some(programs)) => {
            let timeout = places.helper_timeout_sec.duration();
            Some(Arc::new(KubeletPlugins::new(config, programs).with_timeout(timeout)))
        }
        (None, None) => None,
        _ => {
            tracing::warn!(
                "kubelet's credential providers are not asked: `[credentials]` needs both kubelet_config and kubelet_bin_dir"
            );
            None
        }
    }
}

fn docker(places: &CredentialPlaces) -> Option<Arc<dyn CredentialSource>> {
    let docker = match &places.docker_config {
        Some(path) => DockerConfig::new(path),
        None => DockerConfig::from_environment()?,
    };
    Some(Arc::new(docker.with_helper_timeout(places.helper_timeout_sec.duration())))
}

#[cfg(feature = "kubernetes")]
fn secrets(config: &Config) -> Option<Arc<dyn CredentialSource>> {
    use registry::{ClusterAccess, KubernetesSecrets};

    let keychain = &config.kubeconfig_keychain;
    let access = || match &keychain.kubeconfig_path {
        Some(path) => ClusterAccess::Kubeconfig(path.clone()),
        None => ClusterAccess::from_environment(),
    };
    let start = || -> Arc<dyn CredentialSource> { KubernetesSecrets::start(access(), &keychain.namespaces) };
    keychain.enable_keychain.then(start)
}

#[cfg(not(feature = "kubernetes"))]
fn secrets(config: &Config) -> Option<Arc<dyn CredentialSource>> {
    if config.kubeconfig_keychain.enable_keychain {
        tracing::warn!("secrets of Kubernetes are not read: this program was built without them");
    }
    None
}

fn own(places: &CredentialPlaces) -> Vec<Arc<dyn CredentialSource>> {
    let (mut fixed, mut sources) = (StaticCredentials::default(), Vec::<Arc<dyn CredentialSource>>::new());
    for (host, login) in &places.hosts.0 {
        match login {
            HostLogin::Fixed(credentials) => fixed.hosts.push((host.clone(), credentials.clone())),
            HostLogin::File { username, password_file } => {
                sources.push(Arc::new(PasswordFile::new(host, username, password_file)));
            }
        }
    }
    if !fixed.hosts.is_empty() {
        sources.push(Arc::new(fixed));
    }
    sources
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn try_open(text: &str, root: &Path) -> Result<Credentials, CallsItself> {
        let config = Config::parse(text, Path::new("test.toml")).unwrap().config;
        let address = root.join("starling.sock").into();
        let arguments =
            ["starlingd".into(), "--root".into(), OsString::from(root), "--address".into(), address];
        Credentials::open(&config, &Flags::from_arguments(arguments).unwrap())
    }

    #[tokio::test]
    async fn a_proxy_that_would_call_itself_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        let here = root.path().display();
        for (service, refused) in [
            (format!("{here}/starling.sock"), true),
            (format!("{here}/cri.sock"), true),
            (format!("{here}/a/../cri.sock"), true),
            (format!("{here}/a/cri.sock"), false),
        ] {
            let listen = format!("{here}/cri.sock");
            let text = format!(
                "[cri_keychain]\nenable_keychain = true\nimage_service_path = {service:?}\nlisten_path = {listen:?}"
            );
            let error = try_open(&text, root.path()).err().map(|error| error.to_string());
            assert_eq!(error.is_some(), refused, "{service}");
            assert!(error.is_none_or(|error| error.contains(&service)));
            assert!(try_open(&text.replace("enable_keychain = true", ""), root.path()).is_ok());
        }
    }

    fn open(text: &str, root: &Path) -> Vec<String> {
        let config = Config::parse(text, Path::new("test.toml")).unwrap().config;
        let arguments = ["starlingd".into(), "--root".into(), OsString::from(root)];
        let flags = Flags::from_arguments(arguments).unwrap();
        let credentials = Credentials::open(&config, &flags).unwrap();
        assert_eq!(credentials.images.is_some(), config.cri_keychain.enable_keychain);
        assert!(!format!("{credentials:?}").contains("planted"));
        credentials.sources.iter().map(|source| source.describe()).collect()
    }

    #[tokio::test]
    async fn sources_are_asked_in_the_documented_order() {
        let root = tempfile::tempdir().unwrap();
        let sources = open(
            r#"
            [cri_keychain]
            enable_keychain = true
            [kubeconfig_keychain]
            enable_keychain = true
            kubeconfig_path = "/nonexistent/kubeconfig"
            [credentials]
            docker_config = "/d/config.json"
            kubelet_config = "/k/providers.yaml"
            kubelet_bin_dir = "/k/bin"
            [credentials.hosts."a.com"]
            username = "me"
            password = "planted"
            [credentials.hosts."b.com"]
            username = "me"
            password_file = "/p"
            "#,
            root.path(),
        );
        let expected = [
            "credentials of pulls through the CRI image service",
            "kubelet's credential providers of /k/providers.yaml",
            "Docker configuration /d/config.json",
            #[cfg(feature = "kubernetes")]
            "secrets of Kubernetes",
            "password file /p of b.com",
            "static configuration",
        ];
        assert_eq!(sources, expected);
        assert!(root.path().join("credentials/key").exists());
    }

    #[tokio::test]
    async fn nothing_is_made_that_was_not_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let sources =
            open("credentials.docker_config = \"/d\"\ncredentials.kubelet_config = \"/k\"", root.path());
        assert_eq!(sources, ["Docker configuration /d"]);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
