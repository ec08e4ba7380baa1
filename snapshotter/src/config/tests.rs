use std::{collections::BTreeSet, path::Path};

use super::{keys::KEYS, *};

/// Every key of stargz-snapshotter's configuration, with a value of its type.
const STARGZ: &str = r#"
http_cache_type = "memory"
filesystem_cache_type = "directory"
resolve_result_entry_ttl_sec = 60
resolve_result_entry = 30
prefetch_size = 1048576
prefetch_timeout_sec = 10
prefetch_async_size = 0
noprefetch = true
no_background_fetch = true
debug = false
allow_no_verification = true
disable_verification = true
max_concurrency = 16
no_prometheus = true
log_file_access = false
metrics_address = "127.0.0.1:8234"
debug_address = "/run/debug.sock"
ipfs = false
metadata_store = "db"
root_path = "/var/lib/x"
cri_keychain_image_service_path = "/run/x.sock"

[blob]
valid_interval = 60
check_always = false
chunk_size = 50000
fetching_timeout_sec = 300
force_single_range_mode = false
prefetch_chunk_size = 0
max_retries = 5
min_wait_msec = 30
max_wait_msec = 300000

[directory_cache]
max_lru_cache_entry = 10
max_cache_fds = 10
sync_add = false
direct = true
fadv_dontneed = true

[fuse]
attr_timeout = 0
entry_timeout = 0
passthrough = true
merge_buffer_size = 419430400
merge_worker_count = 10

[fuse_manager]
enable = true
address = "/run/x/fuse-manager.sock"
path = ""
metrics_address = ""

[resolver]
request_timeout_sec = 0
[[resolver.host."registry.example:5000".mirrors]]
host = "registry.example:5000"
insecure = true
[[resolver.host."example.com".mirrors]]
host = "mirror.example"
request_timeout_sec = -1
[resolver.host."example.com".mirrors.header]
one = "1"
many = ["1", "2"]

[kubeconfig_keychain]
enable_keychain = false
kubeconfig_path = "/x"

[cri_keychain]
enable_keychain = false
image_service_path = "/x"
listen_path = "/x"

[snapshotter]
allow_invalid_mounts_on_restart = true

[registry]
config_path = "/somewhere/certs.d"
[registry.mirrors."x"]
endpoint = ["http://y"]
[registry.configs."x".tls]
insecure_skip_verify = true
"#;

fn parse(text: &str) -> Result<Loaded, String> {
    Config::parse(text, Path::new("/etc/x.toml")).map_err(|error| error.to_string())
}

#[test]
fn every_key_of_stargz_parses_and_works_or_warns() {
    let loaded = parse(STARGZ).unwrap();
    let config = &loaded.config;
    assert!(config.noprefetch && config.no_background_fetch && config.no_prometheus);
    assert_eq!(config.prefetch_size, ByteSize(1 << 20));
    assert_eq!(config.max_concurrency, 16);
    assert_eq!(config.resolve_result_entry_ttl_sec, Seconds(60));
    assert_eq!(config.metrics_address, "127.0.0.1:8234");
    assert_eq!(config.blob.max_wait_msec, Milliseconds(300_000));
    assert!(config.directory_cache.fadv_dontneed);
    assert_eq!(config.resolver.host.insecure().collect::<Vec<_>>(), ["registry.example:5000"]);
    assert_eq!(config.resolver.host.mirrored().map(|(host, _)| host).collect::<Vec<_>>(), ["example.com"]);
    assert_eq!(config.registry.config_path, "/somewhere/certs.d");
    let mirror = &config.resolver.host.0["example.com"][0];
    assert_eq!(
        (mirror.request_timeout_sec, &mirror.header["many"]),
        (-1, &vec!["1".to_owned(), "2".to_owned()])
    );

    let warned: BTreeSet<_> = loaded.warnings.iter().map(|warning| warning.key).collect();
    for key in KEYS {
        let ignored = matches!(key.standing, keys::Standing::Ignored { .. });
        assert_eq!(warned.contains(key.path), ignored, "{}", key.path);
    }
    assert!(loaded.warnings.iter().is_sorted_by_key(|warning| warning.line));
}

/// Values of all types; the first that a key takes and that is not its default shows that it works.
const VALUES: &[&str] = &[
    "true",
    "false",
    "77",
    "\"77MiB\"",
    "\"/run/x.sock\"",
    "[\"x\"]",
    "{ \"x\" = { mirrors = [{ host = \"x\", insecure = true }] } }",
    "{ \"x\" = { username = \"x\", password = \"y\" } }",
];

#[test]
fn every_key_changes_the_configuration_or_warns_with_a_reason_of_its_own() {
    let mut reasons = BTreeSet::new();
    for key in KEYS {
        let parsed = VALUES.iter().filter_map(|value| parse(&format!("{} = {value}", key.path)).ok());
        match key.standing {
            keys::Standing::Works { .. } => {
                let worked =
                    |loaded: &Loaded| loaded.config != Config::default() && loaded.warnings.is_empty();
                assert!(parsed.into_iter().any(|loaded| worked(&loaded)), "{} does nothing", key.path);
            }
            keys::Standing::Ignored { why, .. } => {
                let loaded: Vec<_> = parsed.collect();
                assert!(!loaded.is_empty(), "{} takes no value", key.path);
                for Loaded { config, warnings } in loaded {
                    assert_eq!(config, Config::default(), "{}", key.path);
                    assert_eq!(warnings, [Warning { line: 1, key: key.path, why }]);
                }
                assert!(why.len() > 10 && reasons.insert(why), "{}: {why:?} is not its own reason", key.path);
            }
        }
    }
}

#[test]
fn the_switches_that_turn_verification_off_say_that_they_do_not() {
    let loaded = parse("disable_verification = true\nallow_no_verification = true").unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings.len(), 2);
    assert!(loaded.warnings.iter().all(|warning| warning.why.contains("cannot be turned off")));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    for (text, message) in [
        (
            "\n[blob]\nmax_retry = 3",
            "/etc/x.toml:3: unknown key \"blob.max_retry\": the nearest known name is \"blob.max_retries\"; rename or remove it",
        ),
        (
            "max_retries = 3",
            "/etc/x.toml:1: unknown key \"max_retries\": the nearest known name is \"blob.max_retries\"; rename or remove it",
        ),
        (
            "[blobb]\nmax_retries = 3",
            "/etc/x.toml:1: unknown key \"blobb\": the nearest known name is \"blob\"; rename or remove it",
        ),
        (
            "no_prefetch = true",
            "/etc/x.toml:1: unknown key \"no_prefetch\": the nearest known name is \"noprefetch\"; rename or remove it",
        ),
        (
            "zzzzzz = 1",
            "/etc/x.toml:1: unknown key \"zzzzzz\": remove it (docs/configuration.md lists all keys)",
        ),
    ] {
        assert_eq!(parse(text).unwrap_err(), message);
    }
}

#[test]
fn values_of_another_type_are_refused_with_line_and_key() {
    for (text, message) in [
        ("noprefetch = 1", "/etc/x.toml:1: key \"noprefetch\" takes true or false, not the number 1"),
        (
            "\nmax_concurrency = 0",
            "/etc/x.toml:2: key \"max_concurrency\" takes a whole number from 1 to 1024, not 0",
        ),
        (
            "max_concurrency = -1",
            "/etc/x.toml:1: key \"max_concurrency\" takes a whole number from 1 to 1024, not -1",
        ),
        ("blob = 3", "/etc/x.toml:1: key \"blob\" takes a table"),
        ("debug = 3", "/etc/x.toml:1: key \"debug\" takes true or false, not the number 3"),
        (
            "store.memory_budget = \"64 MoB\"",
            "/etc/x.toml:1: key \"store.memory_budget\" takes a size such as \"64MiB\", not \"64 MoB\"",
        ),
        (
            "store.memory_budget = 1",
            "/etc/x.toml:1: key \"store.memory_budget\" takes a size from \"8MiB\" to \"1024GiB\", not 1",
        ),
        ("admin.address = \"x\"", "/etc/x.toml:1: key \"admin.address\" takes an absolute path, not \"x\""),
    ] {
        assert_eq!(parse(text).unwrap_err(), message);
    }
    assert!(parse("a = = 1").unwrap_err().starts_with("/etc/x.toml:1: not valid TOML"));
}

#[test]
fn sizes_have_units() {
    for (text, bytes) in
        [("67108864", 64 << 20), ("\"64MiB\"", 64 << 20), ("\"64 MB\"", 64_000_000), ("\"1G\"", 1 << 30)]
    {
        let loaded = parse(&format!("store.memory_budget = {text}")).unwrap();
        assert_eq!(loaded.config.store.memory_budget, ByteSize(bytes));
    }
}

#[test]
fn the_default_file_may_be_missing_and_a_named_one_may_not() {
    let missing = Path::new("/nonexistent/starling.toml");
    let error = Config::load(Some(missing)).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the configuration /nonexistent/starling.toml"), "{error}");
    if !Path::new(DEFAULT_PATH).exists() {
        assert_eq!(Config::load(None).unwrap(), Loaded::default());
    }
}

#[test]
fn every_default_lies_within_its_bounds() {
    for key in KEYS {
        let keys::Standing::Works { field, .. } = &key.standing else { continue };
        let shown = field(&mut Config::default()).show();
        if shown == "none" {
            continue;
        }
        let loaded = parse(&format!("{} = {shown}", key.path)).unwrap();
        assert_eq!(loaded.config, Config::default(), "{}", key.path);
    }
}

#[test]
fn the_reference_is_up_to_date() {
    crate::docs::assert_current("configuration.md", &reference());
}

#[test]
fn the_sample_configuration_parses_without_a_warning() {
    let path = crate::docs::repository().join("deploy/config.toml");
    let loaded = Config::load(Some(&path)).unwrap();
    assert_eq!(loaded.warnings, []);
}
