use std::fs;

use super::*;

mod golden;

/// Settings in whose only directory of hosts these files lie.
fn settings(files: &[(&str, &str)]) -> (tempfile::TempDir, RegistryConfig) {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let config =
        RegistryConfig { host_directories: vec![root.path().to_owned()], ..RegistryConfig::anonymous() };
    (root, config)
}

fn api_host(host: &str) -> &str {
    if host == DOCKER_IO { "registry-1.docker.io" } else { host }
}

fn upstreams(host: &str, config: &RegistryConfig) -> Vec<Upstream> {
    describe(host, api_host(host), config).unwrap().upstreams
}

/// The only host of a registry: its address, what may be doubted, whether its certificate is looked at.
fn only(host: &str, config: &RegistryConfig) -> (String, Doubt, bool) {
    let mut all = upstreams(host, config);
    assert_eq!(all.len(), 1, "{all:?}");
    let Upstream { base, doubt, connection, itself, .. } = all.remove(0);
    assert!(itself);
    (base.to_string(), doubt, connection.skip_verify)
}

fn shown(upstreams: &[Upstream]) -> Vec<(String, bool)> {
    upstreams.iter().map(|upstream| (upstream.base.to_string(), upstream.itself)).collect()
}

#[test]
fn a_registry_of_which_nothing_is_said_is_reached_with_tls_unless_it_is_here() {
    let config = RegistryConfig::anonymous();
    for (host, base, doubt, skip_verify) in [
        ("docker.io", "https://registry-1.docker.io/v2/", Doubt::None, false),
        ("example.com", "https://example.com/v2/", Doubt::None, false),
        ("10.0.0.1:5000", "https://10.0.0.1:5000/v2/", Doubt::None, false),
        ("localhost:5000", "http://localhost:5000/v2/", Doubt::PlainFirst, true),
        ("127.0.0.2:5000", "http://127.0.0.2:5000/v2/", Doubt::PlainFirst, true),
        ("[::1]:5000", "http://[::1]:5000/v2/", Doubt::PlainFirst, true),
        ("localhost:443", "https://localhost/v2/", Doubt::None, true),
        ("localhost", "https://localhost/v2/", Doubt::None, true),
        ("localhost:80", "http://localhost/v2/", Doubt::None, false),
    ] {
        assert_eq!(only(host, &config), (base.to_owned(), doubt, skip_verify), "{host}");
    }
}

#[test]
fn our_own_word_on_the_scheme_counts_where_no_file_names_the_server() {
    let mut config = RegistryConfig::anonymous().with_insecure_host("plain.example.com:80");
    config.hosts.entry("localhost:5000".into()).or_default().scheme = Some(Scheme::Https);
    assert_eq!(only("plain.example.com:80", &config).0, "http://plain.example.com/v2/");
    let tls = ("https://localhost:5000/v2/".to_owned(), Doubt::None, false);
    assert_eq!(only("localhost:5000", &config), tls);
    let (_root, mut config) = settings(&[("a.example/hosts.toml", "server = \"https://a.example\"")]);
    config = config.with_insecure_host("a.example");
    assert_eq!(only("a.example", &config).0, "https://a.example/v2/");
}

#[test]
fn hosts_of_the_file_come_first_and_are_told_which_registry_is_meant() {
    let (_root, mut config) = settings(&[(
        "docker.io/hosts.toml",
        "[host.\"https://m.example\"]\n[host.\"https://registry-1.docker.io\"]\n[host.\"https://docker.io:443\"]",
    )]);
    let key = ("x-key".to_owned(), "planted".to_owned());
    config.hosts.entry("docker.io".into()).or_default().headers.push(key.clone());
    let all = upstreams("docker.io", &config);
    let expected = [
        ("https://m.example/v2/", false),
        ("https://registry-1.docker.io/v2/", true),
        ("https://docker.io/v2/", false),
        ("https://registry-1.docker.io/v2/", true),
    ];
    assert_eq!(shown(&all), expected.map(|(base, itself)| (base.to_owned(), itself)));
    let names: Vec<_> = all.iter().map(|upstream| upstream.name("docker.io")).collect();
    assert_eq!(names, ["m.example", "docker.io", "docker.io", "docker.io"]);
    for upstream in &all {
        assert_eq!(upstream.headers.0.contains(&key), upstream.itself, "{upstream:?}");
    }
    assert!(!format!("{all:?}").contains("planted"));
}

#[test]
fn a_registry_has_its_name_however_its_address_is_spelled() {
    for (host, server, its_own) in [
        ("a.example", "https://A.Example:443", true),
        ("a.example", "https://a.example", true),
        ("a.example:443", "https://a.example", true),
        ("a.example:80", "http://a.example", true),
        ("a.example", "http://a.example:443", false),
        ("a.example", "https://a.example:80", false),
        ("a.example", "https://a.example:5000", false),
        ("a.example", "https://b.example", false),
    ] {
        let (_root, config) = settings(&[("_default/hosts.toml", &format!("server = {server:?}"))]);
        let all = upstreams(host, &config);
        assert_eq!(all[0].name(host) == host, its_own, "{host} at {server}");
    }
}

#[test]
fn settings_for_tls_make_a_host_in_clear_text_doubtful() {
    let (_root, config) = settings(&[
        ("a.example/hosts.toml", "server = \"http://a.example:5000\"\nskip_verify = true"),
        ("b.example/hosts.toml", "server = \"http://b.example:80\"\nskip_verify = true"),
        ("c.example/hosts.toml", "server = \"http://c.example:5000\""),
        ("localhost_5000_/ca.crt", ""),
    ]);
    let base = |host: &str| {
        let upstream = upstreams(host, &config).remove(0);
        (upstream.base.to_string(), upstream.doubt)
    };
    assert_eq!(base("a.example"), ("https://a.example:5000/v2/".to_owned(), Doubt::TlsFirst));
    assert_eq!(base("b.example"), ("http://b.example/v2/".to_owned(), Doubt::None));
    assert_eq!(base("c.example"), ("http://c.example:5000/v2/".to_owned(), Doubt::None));
    assert_eq!(base("localhost:5000"), ("https://localhost:5000/v2/".to_owned(), Doubt::TlsFirst));
}

#[test]
fn mirrors_of_our_own_configuration_replace_the_files() {
    let (_root, mut config) = settings(&[("a.example/hosts.toml", "server = \"https://file.example\"")]);
    let mirror = |host: &str| Mirror { host: host.to_owned(), ..Mirror::default() };
    let own = config.hosts.entry("a.example".into()).or_default();
    own.mirrors = vec![
        Mirror {
            scheme: Some(Scheme::Http),
            silence: Some(Duration::from_secs(3)),
            ..mirror("m.example:5000")
        },
        mirror("localhost:5001"),
        mirror("docker.io"),
    ];
    let expected = [
        ("http://m.example:5000/v2/", false),
        ("http://localhost:5001/v2/", false),
        ("https://registry-1.docker.io/v2/", false),
        ("https://a.example/v2/", true),
    ];
    let all = upstreams("a.example", &config);
    assert_eq!(shown(&all), expected.map(|(base, itself)| (base.to_owned(), itself)));
    assert_eq!(all[0].connection.silence, Some(Duration::from_secs(3)));
    assert_eq!((all[0].capabilities, all[3].capabilities), (Capabilities::READ, Capabilities::ALL));
    let own = config.hosts.get_mut("a.example").unwrap();
    own.mirrors = vec![mirror("a.example"), mirror("m.example")];
    own.scheme = Some(Scheme::Http);
    let expected = [("http://a.example/v2/", true), ("https://m.example/v2/", false)];
    assert_eq!(
        shown(&upstreams("a.example", &config)),
        expected.map(|(base, itself)| (base.to_owned(), itself))
    );
    own_mirror_that_is_no_host(&mut config);
}

fn own_mirror_that_is_no_host(config: &mut RegistryConfig) {
    let own = config.hosts.get_mut("a.example").unwrap();
    own.mirrors = vec![Mirror { host: "m example".to_owned(), ..Mirror::default() }];
    let described = describe("a.example", "a.example", config).unwrap();
    assert_eq!((described.upstreams.len(), described.problems.len()), (1, 1));
}

#[test]
fn dockers_configuration_counts_where_nothing_else_is_said() {
    let (root, mut config) = settings(&[
        (
            "daemon.json",
            r#"{"registry-mirrors": ["https://m.example/", "http://[::1]:5000"],
                "insecure-registries": ["i.example:5000", "m.example"]}"#,
        ),
        ("special/docker.io/hosts.toml", "server = \"https://file.example\""),
        ("special/i.example_5000_/ca.crt", ""),
    ]);
    config.host_directories.clear();
    config.docker_daemon = Some(root.path().join("daemon.json"));
    let all = upstreams("docker.io", &config);
    let expected = [
        ("https://m.example/v2/", false),
        ("http://[::1]:5000/v2/", false),
        ("https://registry-1.docker.io/v2/", true),
    ];
    assert_eq!(shown(&all), expected.map(|(base, itself)| (base.to_owned(), itself)));
    assert_eq!((&all[0].doubt, all[0].connection.skip_verify), (&Doubt::TlsFirst, true));
    assert_eq!((&all[1].doubt, all[2].connection.skip_verify), (&Doubt::None, false));
    let insecure = ("https://i.example:5000/v2/".to_owned(), Doubt::TlsFirst, true);
    assert_eq!(only("i.example:5000", &config), insecure);
    assert_eq!(only("i.example", &config).0, "https://i.example/v2/");
    config.host_directories = vec![root.path().join("special")];
    assert_eq!(shown(&upstreams("docker.io", &config)), [("https://file.example/v2/".to_owned(), false)]);
    assert_eq!(only("i.example:5000", &config), insecure);
    fs::write(root.path().join("daemon.json"), "{").unwrap();
    let described = describe("quay.example", "quay.example", &config).unwrap();
    assert_eq!((described.upstreams.len(), described.problems.len()), (1, 1));
}

#[test]
fn a_mirror_of_docker_that_cannot_be_used_is_a_problem_that_tells_no_password() {
    for (mirror, shown) in [
        ("httpx://m.example", "m.example"),
        ("httpx://me:planted@m.example", "m.example"),
        ("http://me:planted@", "no host"),
    ] {
        let text = format!(r#"{{"registry-mirrors": [{mirror:?}, "https://good.example"]}}"#);
        let (root, mut config) = settings(&[("daemon.json", &text)]);
        config.host_directories.clear();
        config.docker_daemon = Some(root.path().join("daemon.json"));
        let described = describe(DOCKER_IO, "registry-1.docker.io", &config).unwrap();
        assert_eq!((described.upstreams.len(), described.problems.len()), (2, 1), "{mirror}");
        let problem = &described.problems[0];
        assert!(problem.contains(shown) && !problem.contains("planted"), "{problem}");
    }
}

#[test]
fn a_new_certificate_in_the_same_file_is_another_connection() {
    let (root, config) = settings(&[("a.example/ca.crt", "one")]);
    let before = upstreams("a.example", &config);
    assert_eq!(before, upstreams("a.example", &config));
    fs::write(root.path().join("a.example/ca.crt"), "another").unwrap();
    assert_ne!(before[0].connection, upstreams("a.example", &config)[0].connection);
}
