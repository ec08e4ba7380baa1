//! The files in `deploy/` agree with the program's defaults.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path};

use snapshotter::flags::{DEFAULT_ADDRESS, DEFAULT_ROOT};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)).unwrap()
}

#[test]
fn containerds_configurations_name_our_socket_and_root() {
    for (name, version) in [("containerd/config-v2.toml", 2), ("containerd/config-v3.toml", 3)] {
        let config: toml::Table = read(name).parse().unwrap();
        assert_eq!(config["version"].as_integer(), Some(version), "{name}");
        let plugin = &config["proxy_plugins"]["starling"];
        assert_eq!(plugin["type"].as_str(), Some("snapshot"));
        assert_eq!(plugin["address"].as_str(), Some(DEFAULT_ADDRESS));
        assert_eq!(plugin["exports"]["root"].as_str(), Some(format!("{DEFAULT_ROOT}/").as_str()));
        let annotations =
            plugin["exports"].get("enable_remote_snapshot_annotations").and_then(|v| v.as_str());
        assert_eq!(annotations, (version == 3).then_some("true"), "{name}");
    }
}

#[test]
fn the_unit_keeps_the_connection_and_starts_the_daemon_again_at_once() {
    let unit = read("systemd/starling.service");
    for line in [
        "NotifyAccess=main",
        "FileDescriptorStoreMax=16",
        "FileDescriptorStorePreserve=yes",
        "Restart=always",
        "RestartSec=20ms",
        "StartLimitIntervalSec=0",
    ] {
        assert!(unit.lines().any(|there| there == line), "{line}");
    }
}

#[test]
fn the_daemon_set_shares_what_must_outlive_its_pods() {
    let yaml = read("kubernetes/daemonset.yaml");
    let run = Path::new(DEFAULT_ADDRESS).parent().unwrap().display().to_string();
    for part in [
        "hostPID: true",
        "privileged: true",
        "mountPropagation: Bidirectional",
        "starling-holder --keep --outside /proc/1",
        "path: /var/lib/starling",
        "path: /etc/containerd/certs.d",
        &format!("path: {run}"),
    ] {
        assert!(yaml.contains(part), "{part}");
    }
    assert!(yaml.contains(DEFAULT_ROOT));
}

#[test]
fn the_unit_makes_the_directories_of_the_defaults() {
    let unit = read("systemd/starling.service");
    let says = |line: &str| assert!(unit.lines().any(|there| there == line), "{line}");
    says("Type=notify");
    says("Before=containerd.service");
    says("Environment=HOME=/root");
    let run = Path::new(DEFAULT_ADDRESS).parent().unwrap();
    says(&format!("RuntimeDirectory={}", run.strip_prefix("/run").unwrap().display()));
    says(&format!("StateDirectory={}", Path::new(DEFAULT_ROOT).strip_prefix("/var/lib").unwrap().display()));
}
