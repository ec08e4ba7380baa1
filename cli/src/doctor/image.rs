//! Whether an image's registry can be reached, as the daemon reaches it.

use std::time::Duration;

use estargz::Digest;
use registry::{ImageSource, Platform, Reference, RegistryClient, RegistryConfig, RetryPolicy};
use snapshotter::{
    config::{Config, ConfigError, Loaded},
    daemon::registry_settings,
};
use store::{SourceError, SourceErrorKind};

use super::check::{Check, Remedy};

const NAME: &str = "registry";
/// Whoever asks waits for the answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks the image `reference` up with the settings of `loaded`; nothing is looked up without one.
pub(super) async fn check(reference: Option<&Reference>, loaded: &Result<Loaded, ConfigError>) -> Check {
    match (reference, loaded) {
        (None, _) => Check::skipped(NAME, "name an image with --image to try its registry"),
        (Some(_), Err(_)) => {
            Check::skipped(NAME, "starlingd's file says how to reach it, and cannot be used")
        }
        (Some(reference), Ok(loaded)) => match resolve(reference, loaded).await {
            Ok((digest, layers)) => Check::ok(NAME, format!("{reference} is {digest}, {layers} layers")),
            Err(error) => {
                Check::failure(NAME, error.message.clone(), remedy(reference, error.kind, &loaded.config))
            }
        },
    }
}

async fn resolve(reference: &Reference, loaded: &Loaded) -> Result<(Digest, usize), SourceError> {
    let mut settings = registry_settings(&loaded.config);
    settings.retry = RetryPolicy { attempts: 2, total: PATIENCE, ..settings.retry };
    let image = RegistryClient::new(settings)?.image(reference.clone());
    let (fetched, manifest) = image.platform_manifest(&Platform::current()).await?;
    Ok((fetched.digest, manifest.layers.len()))
}

fn remedy(reference: &Reference, kind: SourceErrorKind, config: &Config) -> Remedy {
    let host = reference.host();
    match kind {
        SourceErrorKind::Unauthorized | SourceErrorKind::Forbidden => Remedy::new(
            "docs/credentials.md says where starlingd looks for credentials; those of pulls through the CRI proxy and of \
             Kubernetes' secrets are not asked here. As the user of starlingd, run",
            vec![format!("docker login {host}")],
        ),
        SourceErrorKind::NotFound => Remedy::say("look at the image's name"),
        _ => Remedy::new(
            "look at the network, and at what docs/registries.md says of mirrors and certificates, which are set in",
            vec![described_in(host, &registry_settings(config))],
        ),
    }
}

/// Where the daemon is told of `host`. Mirrors in its own configuration leave files no say.
fn described_in(host: &str, settings: &RegistryConfig) -> String {
    if settings.hosts.get(host).is_some_and(|own| !own.mirrors.is_empty()) {
        return format!("[[resolver.host.\"{host}\".mirrors]] in starlingd's file");
    }
    match settings.host_directories.first() {
        Some(directory) => directory.join(host).join("hosts.toml").display().to_string(),
        None => "[registry] config_path in starlingd's file, which names no directory".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::State, *};

    #[tokio::test]
    async fn without_an_image_nothing_is_asked() {
        assert_eq!(check(None, &Ok(Loaded::default())).await.state, State::Skipped);
    }

    #[tokio::test]
    async fn an_image_is_looked_up_as_the_daemon_would() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let reference = format!("{free}/a:1").parse().unwrap();
        let away = check(Some(&reference), &Ok(Loaded::default())).await;
        assert_eq!(away.state, State::Failure);
        assert_eq!(away.remedy.unwrap().lines, [format!("/etc/containerd/certs.d/{free}/hosts.toml")]);
    }

    #[test]
    fn it_names_the_place_that_counts() {
        let place = |text: &str| {
            let config = Config::parse(text, "c.toml".as_ref()).unwrap().config;
            described_in("a.example", &registry_settings(&config))
        };
        assert_eq!(place("[registry]\nconfig_path = \"/x:/y\""), "/x/a.example/hosts.toml");
        assert!(place("[registry]\nconfig_path = \"\"").contains("config_path"));
        let mirror = "[[resolver.host.\"a.example\".mirrors]]\nhost = \"m.example\"";
        assert_eq!(place(mirror), "[[resolver.host.\"a.example\".mirrors]] in starlingd's file");
    }
}
