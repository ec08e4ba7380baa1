//! containerd's configurations, complete and with each part missing: what is said, and that it helps.

use std::path::Path;

use snapshotter::flags::{DEFAULT_ADDRESS, DEFAULT_ROOT};

use super::{
    check::{Check, State},
    containerd::judge,
    document::Document,
    proxy_plugin::Wanted,
};

const PLUGIN: &str = r#"
[proxy_plugins.starling]
  type = "snapshot"
  address = "/run/starling/starling.sock"
  [proxy_plugins.starling.exports]
    root = "/var/lib/starling/"
    enable_remote_snapshot_annotations = "true"
"#;
const UNPACK: &str = r#"
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "linux"
  snapshotter = "starling"
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "linux"
  snapshotter = "overlayfs"
"#;
const CRI: &str = "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'starling'\n";
const CRI_2: &str = r#"[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "starling"
"#;
const TELLING: &str = "disable_snapshot_annotations = false\n";

fn checks(text: &str) -> Vec<Check> {
    let path = Path::new("/etc/containerd/config.toml");
    let wanted =
        Wanted { name: "starling", address: Path::new(DEFAULT_ADDRESS), root: Path::new(DEFAULT_ROOT) };
    judge(Document::parse(text, path), path, wanted)
}

/// What is not well: name, state, what to do, lines.
fn troubles(text: &str) -> Vec<(&'static str, State, String, Vec<String>)> {
    let troubled = checks(text).into_iter().filter_map(|check| {
        let remedy = check.remedy?;
        Some((check.name, check.state, remedy.what, remedy.lines))
    });
    troubled.collect()
}

/// The only thing that is not well: name, state, what to do, lines.
#[track_caller]
fn only(text: &str) -> (&'static str, State, String, Vec<String>) {
    let mut all = troubles(text);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn version_3(parts: &[&str]) -> String {
    format!("version = 3\n{}", parts.concat())
}

fn version_2(parts: &[&str]) -> String {
    format!("version = 2\n{}", parts.concat())
}

#[test]
fn the_configurations_in_deploy_are_well() {
    for version in [2, 3] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../deploy/containerd/config-v{version}.toml"));
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(troubles(&text), [], "version {version}");
        assert!(checks(&text).iter().any(|check| check.name == "CRI labels" && check.state == State::Ok));
    }
    assert_eq!(troubles(&version_3(&[PLUGIN, UNPACK, CRI])), []);
}

/// What is said of configurations with one trouble: name, state, what to do, lines.
#[track_caller]
fn says(text: &str, name: &str, state: State, what: &str, lines: &[&str]) {
    let (is_name, is_state, is_what, is_lines) = only(text);
    assert_eq!((is_name, is_state), (name, state), "{text}");
    assert!(is_what.contains(what), "{is_what:?} does not say {what:?}\n{text}");
    assert_eq!(is_lines, lines, "{text}");
}

#[test]
fn a_missing_proxy_plugin_is_spelled_out_for_each_version() {
    let newer = [
        "[proxy_plugins.starling]",
        "  type = \"snapshot\"",
        "  address = \"/run/starling/starling.sock\"",
        "  [proxy_plugins.starling.exports]",
        "    root = \"/var/lib/starling/\"",
        "    enable_remote_snapshot_annotations = \"true\"",
    ];
    let what = "add to /etc/containerd/config.toml, and restart containerd";
    says(&version_3(&[UNPACK, CRI]), "proxy plugin", State::Failure, what, &newer);
    // containerd 1.7 does not know the last line.
    says(&version_2(&[CRI_2, TELLING]), "proxy plugin", State::Failure, what, &newer[..5]);
}

#[test]
fn a_line_of_the_proxy_plugin_that_is_wrong_is_named() {
    let what = "in /etc/containerd/config.toml, in the table [proxy_plugins.starling], set";
    for (right, wrong, line) in [
        ("starling.sock", "other.sock", "address = \"/run/starling/starling.sock\""),
        ("\"snapshot\"", "\"content\"", "type = \"snapshot\""),
    ] {
        let text = version_3(&[&PLUGIN.replace(right, wrong), UNPACK, CRI]);
        says(&text, "proxy plugin", State::Failure, what, &[line]);
    }
    let what = "in the table [proxy_plugins.starling.exports], set";
    let line = "enable_remote_snapshot_annotations = \"true\"";
    for (right, wrong) in [(line, ""), ("\"true\"", "true"), ("\"true\"", "\"false\"")] {
        let text = version_3(&[&PLUGIN.replace(right, wrong), UNPACK, CRI]);
        says(&text, "image labels", State::Failure, what, &[line]);
    }
    let root = "root = \"/var/lib/starling/\"";
    let elsewhere = version_3(&[&PLUGIN.replace("/var/lib/starling/", "/elsewhere"), UNPACK, CRI]);
    says(&elsewhere, "exported root", State::Warning, what, &[root]);
    let bare = PLUGIN.split("  [").next().unwrap();
    let lines = ["[proxy_plugins.starling.exports]", "  root = \"/var/lib/starling/\""];
    says(&version_2(&[bare, CRI_2, TELLING]), "exported root", State::Warning, "add to", &lines);
}

#[test]
fn entries_of_unpack_config_that_are_missing_are_named() {
    let entry = |snapshotter: &str| {
        let head = "[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]".to_owned();
        [head, "  platform = \"linux\"".to_owned(), format!("  snapshotter = \"{snapshotter}\"")]
    };
    let (ours, ordinary) = (entry("starling"), entry("overlayfs"));
    let (ours, ordinary) = (ours.each_ref().map(String::as_str), ordinary.each_ref().map(String::as_str));
    let say = |unpack: &str, state, lines: &[&str]| {
        says(&version_3(&[PLUGIN, unpack, CRI]), "unpacking", state, "add to", lines);
    };
    say("", State::Failure, &[ours, ordinary].concat());
    say(&UNPACK.replace("starling", "overlayfs"), State::Failure, &ours);
    say(&UNPACK.replace("overlayfs", "starling"), State::Warning, &ordinary);
    // An entry for another platform is none.
    say(&UNPACK.replacen("linux", "windows/amd64", 1), State::Failure, &ours);
}

#[test]
fn what_is_missing_for_kubelet_is_named() {
    let (name, state) = ("CRI snapshotter", State::Warning);
    let maybe = "if this is a node of Kubernetes, add to";
    let set = "in the table [plugins.'io.containerd.cri.v1.images'], set";
    let lines = ["[plugins.'io.containerd.cri.v1.images']", "  snapshotter = \"starling\""];
    says(&version_3(&[PLUGIN, UNPACK]), name, state, maybe, &lines);
    let other = CRI.replace("starling", "overlayfs");
    says(&version_3(&[PLUGIN, UNPACK, &other]), name, state, set, &["snapshotter = \"starling\""]);
    let older = [
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd]",
        "  snapshotter = \"starling\"",
        "  disable_snapshot_annotations = false",
    ];
    says(&version_2(&[PLUGIN]), name, state, maybe, &older);

    let (name, state, line) = ("CRI labels", State::Failure, "disable_snapshot_annotations = false");
    let older = "in the table [plugins.\"io.containerd.grpc.v1.cri\".containerd], set";
    says(&version_2(&[PLUGIN, CRI_2]), name, state, older, &[line]);
    // With any of these keys the CRI plugin does not pull through the transfer service.
    for key in [
        "use_local_image_pull = true",
        "discard_unpacked_layers = true",
        "image_pull_with_sync_fs = true",
        "max_concurrent_downloads = 8",
        "registry.mirrors.a = {}",
        "registry.configs.a = {}",
    ] {
        says(&version_3(&[PLUGIN, UNPACK, CRI, key]), name, state, set, &[line]);
        assert_eq!(troubles(&version_3(&[PLUGIN, UNPACK, CRI, key, "\n", TELLING])), [], "{key}");
    }
    let harmless = "max_concurrent_downloads = 3\nregistry.config_path = '/c'\n";
    assert_eq!(troubles(&version_3(&[PLUGIN, UNPACK, CRI, harmless])), []);
}

#[test]
fn version_1_is_not_read() {
    let migrate = "containerd config migrate";
    says(PLUGIN, "configuration", State::Failure, migrate, &["version = 3"]);
    let one = format!("version = 1\n{PLUGIN}");
    says(&one, "configuration", State::Failure, migrate, &["version = 3"]);
}

#[test]
fn what_is_to_be_added_makes_an_empty_configuration_well() {
    for mut text in ["version = 2\n".to_owned(), "version = 3\n".to_owned(), version_3(&[UNPACK])] {
        for (_, _, what, lines) in troubles(&text) {
            assert!(what.contains("add to /etc/containerd/config.toml"), "{what}");
            text += &(lines.join("\n") + "\n");
        }
        assert_eq!(troubles(&text), [], "{text}");
    }
}

#[test]
fn a_file_that_is_missing_is_spelled_out_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let wanted = Wanted { name: "stargz", address: Path::new("/a.sock"), root: Path::new("/r") };
    let missing = super::containerd::checks(&path, wanted);
    let lines = &missing[0].remedy.as_ref().unwrap().lines;
    std::fs::write(&path, lines.join("\n")).unwrap();
    let failures: Vec<_> = super::containerd::checks(&path, wanted)
        .into_iter()
        .filter(|check| check.state == State::Failure)
        .collect();
    assert_eq!(failures, []);
    std::fs::write(&path, "version = ").unwrap();
    assert!(super::containerd::checks(&path, wanted)[0].found.contains("is not TOML"));
}

#[test]
fn a_cri_plugin_that_is_disabled_does_not_matter() {
    for name in ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"] {
        let text = version_3(&[&format!("disabled_plugins = ['{name}']\n"), PLUGIN, UNPACK]);
        assert_eq!(troubles(&text), [], "{name}");
    }
}
