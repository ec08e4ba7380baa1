//! From the configuration to the settings of the crates below.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use fusefs::{MountOptions, OpaqueForm};
use registry::{Mirror, RegistryConfig, RetryPolicy, Scheme};
use store::StoreConfig;

use crate::{
    config::{self, Config},
    flags::Flags,
};

/// The kernel's reads end with the store's, or a little later if the store hangs.
const READ_GRACE: Duration = Duration::from_secs(30);
/// The silence of a mirror that may be silent for as long as it likes: reads end much earlier.
const UNLIMITED: Duration = Duration::from_secs(86_400);

/// How registries are talked to.
pub(super) fn registry(config: &Config) -> RegistryConfig {
    let defaults = RegistryConfig::default();
    let (blob, resolver) = (&config.blob, &config.resolver);
    let silence = resolver.request_timeout_sec.duration();
    let mut settings = RegistryConfig {
        ca_files: resolver.ca_files.iter().map(Into::into).collect(),
        idle_timeout: if silence.is_zero() { defaults.idle_timeout } else { silence },
        retry: RetryPolicy {
            attempts: u32::try_from(blob.max_retries).unwrap_or(u32::MAX).saturating_add(1),
            first_delay: blob.min_wait_msec.duration(),
            max_delay: blob.max_wait_msec.duration().max(blob.min_wait_msec.duration()),
            total: blob.fetching_timeout_sec.duration(),
        },
        // None of the background's requests waits for a connection: a read may join what it brings.
        background_connections: count(config.max_concurrency)
            .saturating_mul(store::SHORT_REQUESTS)
            .max(defaults.background_connections),
        user_agent: format!("starling/{}", crate::VERSION),
        host_directories: directories(&config.registry.config_path),
        docker_daemon: config.registry.docker_config.clone(),
        ..defaults
    };
    for host in resolver.insecure.iter().map(String::as_str).chain(resolver.host.insecure()) {
        settings = settings.with_insecure_host(host);
    }
    for (host, header) in resolver.host.own_headers() {
        settings.hosts.entry(host.to_owned()).or_default().headers.extend(headers(header));
    }
    for (host, mirrors) in resolver.host.mirrored() {
        settings.hosts.entry(host.to_owned()).or_default().mirrors = mirrors.iter().map(mirror).collect();
    }
    settings
}

/// A list of directories as containerd writes it.
fn directories(list: &str) -> Vec<PathBuf> {
    list.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect()
}

/// Each value of each header.
fn headers(header: &BTreeMap<String, Vec<String>>) -> impl Iterator<Item = (String, String)> {
    header.iter().flat_map(|(name, values)| values.iter().map(|value| (name.clone(), value.clone())))
}

fn mirror(mirror: &config::Mirror) -> Mirror {
    Mirror {
        host: mirror.host.clone(),
        scheme: mirror.insecure.then_some(Scheme::Http),
        headers: headers(&mirror.header).collect(),
        silence: match u64::try_from(mirror.request_timeout_sec) {
            Ok(0) => None,
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => Some(UNLIMITED),
        },
    }
}

/// How layers are kept and fetched.
pub(super) fn store(config: &Config, flags: &Flags) -> StoreConfig {
    let (store, defaults) = (&config.store, StoreConfig::new(&flags.root));
    StoreConfig {
        memory_budget: store.memory_budget.0,
        decode_threads: or(store.decode_threads, defaults.decode_threads),
        idle_threads: or(store.decode_threads, defaults.idle_threads),
        read_timeout: store.read_timeout_sec.duration(),
        background: !config.no_background_fetch,
        background_windows: count(config.max_concurrency),
        background_window: store.background_window.0,
        min_window: store.min_window.0,
        record: config.profile.record_sec.duration(),
        profile_bytes: config.profile.keep.0,
        max_window: store.max_window.0.max(store.min_window.0),
        drop_page_cache: config.directory_cache.fadv_dontneed,
        ..defaults
    }
}

/// How the kernel is served.
pub(super) fn mount(config: &Config, opaque: OpaqueForm) -> MountOptions {
    MountOptions {
        attributes: true,
        opaque,
        read_ahead_kb: u32::try_from(config.mount.read_ahead.0 >> 10).unwrap_or(u32::MAX),
        threads: or(config.mount.threads, MountOptions::default().threads),
        read_deadline: config.store.read_timeout_sec.duration() + READ_GRACE,
    }
}

/// A number, or what 0 stands for.
fn or(number: u64, default: usize) -> usize {
    if number == 0 { default } else { count(number) }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, path::Path};

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("test.toml")).unwrap().config
    }

    #[test]
    fn hosts_retries_and_times_reach_the_registry_client() {
        let config = config(
            r#"
            max_concurrency = 16
            [blob]
            max_retries = 2
            min_wait_msec = 20
            max_wait_msec = 10
            fetching_timeout_sec = 7
            [resolver]
            insecure = ["one.example:5000"]
            request_timeout_sec = 3
            [[resolver.host."two.example".mirrors]]
            host = "two.example"
            insecure = true
            [resolver.host."two.example".mirrors.header]
            x-key = ["a", "b"]
            "#,
        );
        let settings = registry(&config);
        let retry = &settings.retry;
        assert_eq!((retry.attempts, retry.total), (3, Duration::from_secs(7)));
        assert_eq!(
            (retry.first_delay, retry.max_delay),
            (Duration::from_millis(20), Duration::from_millis(20))
        );
        assert_eq!((settings.idle_timeout, settings.background_connections), (Duration::from_secs(3), 32));
        for host in ["one.example:5000", "two.example"] {
            assert_eq!(settings.hosts[host].scheme, Some(Scheme::Http), "{host}");
        }
        assert_eq!(settings.hosts["two.example"].headers.len(), 2);
    }

    #[test]
    fn mirrors_and_directories_reach_the_registry_client() {
        let defaults = registry(&Config::default());
        assert_eq!(defaults.host_directories, RegistryConfig::default_host_directories());
        assert_eq!(defaults.docker_daemon, None);
        let settings = registry(&config(
            r#"
            [registry]
            config_path = "/a::/b"
            docker_config = "/etc/docker/daemon.json"
            [[resolver.host."one.example".mirrors]]
            host = "m.example:5000"
            insecure = true
            request_timeout_sec = 3
            [[resolver.host."one.example".mirrors]]
            host = "one.example"
            [[resolver.host."one.example".mirrors]]
            host = "n.example"
            request_timeout_sec = -1
            [resolver.host."one.example".mirrors.header]
            x-key = ["a", "b"]
            "#,
        ));
        assert_eq!(settings.host_directories, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(settings.docker_daemon.as_deref(), Some(Path::new("/etc/docker/daemon.json")));
        let one = &settings.hosts["one.example"];
        assert_eq!(one.scheme, None, "only the mirror is insecure");
        let [first, own, last] = one.mirrors.as_slice() else { panic!("{:?}", one.mirrors) };
        assert_eq!((first.host.as_str(), first.scheme), ("m.example:5000", Some(Scheme::Http)));
        assert_eq!((first.silence, own.silence), (Some(Duration::from_secs(3)), None));
        assert_eq!(
            (own.host.as_str(), last.headers.len(), last.silence),
            ("one.example", 2, Some(UNLIMITED))
        );
        assert_eq!(settings.hosts.len(), 1);
    }

    #[test]
    fn the_cache_on_disk_is_as_the_configuration_says() {
        let config = config("[directory_cache]\nfadv_dontneed = true\n[store]\nmin_window = \"16MiB\"");
        let flags = Flags::from_arguments([OsString::from("starlingd")]).unwrap();
        let settings = store(&config, &flags);
        assert!(settings.drop_page_cache);
        assert_eq!((settings.min_window, settings.max_window), (16 << 20, 16 << 20));
    }

    #[test]
    fn the_defaults_are_those_of_the_crates_below() {
        let config = Config::default();
        let flags = Flags::from_arguments([OsString::from("starlingd")]).unwrap();
        assert_eq!(store(&config, &flags), StoreConfig::default());
        assert_eq!(registry(&config).retry, RetryPolicy::default());
        let (mount, default) = (mount(&config, OpaqueForm::User), MountOptions::default());
        assert_eq!((mount.read_ahead_kb, mount.threads), (default.read_ahead_kb, default.threads));
        assert!(mount.read_deadline > config.store.read_timeout_sec.duration());
    }
}
