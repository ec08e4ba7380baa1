//! The lines that containerd's configuration needs for lazy pulls, as `pull` and `doctor` print them.
//!
//! They mean what `deploy/containerd/` says; tests of `doctor` compare them.

use std::path::Path;

/// The export that makes the transfer service pass on what a lazy snapshotter must know (containerd 2.1 and newer).
pub(crate) const ANNOTATIONS: &str = "enable_remote_snapshot_annotations";
/// The plugin that `ctr`, nerdctl, `starling pull` and newer CRI plugins pull through.
pub(crate) const TRANSFER: &str = "io.containerd.transfer.v1.local";
/// The CRI plugin in configurations of version 2.
pub(crate) const CRI_V2: &str = "io.containerd.grpc.v1.cri";
/// The part of the CRI plugin that pulls, in configurations of version 3 and newer.
pub(crate) const CRI_V3: &str = "io.containerd.cri.v1.images";

/// A line that gives `key` a text.
pub(crate) fn set(key: &str, value: &str) -> String {
    format!("{key} = {}", toml::Value::from(value))
}

/// The table of the proxy plugin `name`.
pub(crate) fn plugin_table(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') && !name.is_empty();
    if bare { format!("proxy_plugins.{name}") } else { format!("proxy_plugins.{}", toml::Value::from(name)) }
}

/// The directory in which the CRI plugin measures the disk for images, as its configuration has it.
pub(crate) fn exported_root(root: &Path) -> String {
    format!("{}/", root.display().to_string().trim_end_matches('/'))
}

/// The proxy plugin `name`; with `annotations` in the form for containerd 2.1 and newer.
pub(crate) fn proxy_plugin(name: &str, address: &Path, root: &Path, annotations: bool) -> Vec<String> {
    let table = plugin_table(name);
    let mut lines = vec![
        format!("[{table}]"),
        format!("  {}", set("type", "snapshot")),
        format!("  {}", set("address", &address.display().to_string())),
        format!("  [{table}.exports]"),
        format!("    {}", set("root", &exported_root(root))),
    ];
    lines.extend(annotations.then(|| format!("    {}", set(ANNOTATIONS, "true"))));
    lines
}

/// Lets the transfer service unpack into the snapshotter `name`.
pub(crate) fn unpack_entry(name: &str) -> Vec<String> {
    vec![
        format!("[[plugins.'{TRANSFER}'.unpack_config]]"),
        format!("  {}", set("platform", "linux")),
        format!("  {}", set("snapshotter", name)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_quoted_where_they_must_be() {
        assert_eq!(plugin_table("starling"), "proxy_plugins.starling");
        assert_eq!(plugin_table("my.own"), "proxy_plugins.\"my.own\"");
        let lines = proxy_plugin("a b", Path::new("/a \"b\""), Path::new("/r"), true).join("\n");
        let table: toml::Table = lines.parse().unwrap();
        assert_eq!(table["proxy_plugins"]["a b"]["address"].as_str(), Some("/a \"b\""));
        assert_eq!(table["proxy_plugins"]["a b"]["exports"]["root"].as_str(), Some("/r/"));
    }
}
