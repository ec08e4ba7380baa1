//! Whether containerd's configuration lets a pull be lazy, and what to add to it where it does not.

use std::path::Path;

use anyhow::{Context, Result, bail};
use proto::introspection::Plugin;
use snapshotter::flags::{DEFAULT_ADDRESS, DEFAULT_ROOT};

use super::containerd::Containerd;
use crate::containerd_lines::{ANNOTATIONS, plugin_table, proxy_plugin, set, unpack_entry};

/// containerd's type of snapshotter plugins.
pub(crate) const SNAPSHOTTER_TYPE: &str = "io.containerd.snapshotter.v1";

/// Fails with what to add to containerd's configuration unless it has `snapshotter` as a plugin for lazy pulls.
pub(super) async fn check(containerd: &Containerd, snapshotter: &str) -> Result<()> {
    let plugins =
        containerd.plugins(SNAPSHOTTER_TYPE).await.context("cannot ask containerd for its plugins")?;
    judge(plugins.iter().find(|plugin| plugin.id == snapshotter), snapshotter)
}

fn judge(plugin: Option<&Plugin>, snapshotter: &str) -> Result<()> {
    let Some(plugin) = plugin else {
        bail!(
            "containerd has no snapshotter {snapshotter:?}: add to its configuration (version 3), and restart it\n\n{}\n{}",
            proxy_plugin_lines(snapshotter),
            unpack_config(snapshotter)
        );
    };
    if let Some(error) = &plugin.init_err {
        bail!("containerd could not start its snapshotter {snapshotter:?}: {}", error.message);
    }
    if plugin.exports.get(ANNOTATIONS).map(String::as_str) != Some("true") {
        bail!(
            "containerd does not tell the snapshotter {snapshotter:?} which image a layer is of, so no layer could be \
             lazy: add to its configuration (containerd 2.1 or newer), and restart it\n\n\
             [{}.exports]\n  {}\n",
            plugin_table(snapshotter),
            set(ANNOTATIONS, "true")
        );
    }
    Ok(())
}

/// What to say when the transfer service does not unpack into `snapshotter`.
pub(super) fn not_unpacked(snapshotter: &str) -> String {
    format!(
        "containerd's transfer service does not unpack into {snapshotter:?}: add to containerd's configuration, and \
         restart it\n\n{}",
        unpack_config(snapshotter)
    )
}

fn proxy_plugin_lines(name: &str) -> String {
    let lines = proxy_plugin(name, Path::new(DEFAULT_ADDRESS), Path::new(DEFAULT_ROOT), true);
    lines.join("\n") + "\n"
}

fn unpack_config(name: &str) -> String {
    // The first entry in a configuration replaces the built-in one.
    format!(
        "{}\n\n# keeps ordinary pulls working, unless it is there already\n{}\n",
        unpack_entry(name).join("\n"),
        unpack_entry("overlayfs").join("\n")
    )
}

#[cfg(test)]
mod tests {
    use proto::introspection::Status;

    use super::*;

    fn plugin(exports: &[(&str, &str)]) -> Plugin {
        let exports = exports.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Plugin { r#type: SNAPSHOTTER_TYPE.into(), id: "starling".into(), exports, ..Plugin::default() }
    }

    #[test]
    fn what_is_missing_is_spelled_out() {
        let missing = judge(None, "starling").unwrap_err().to_string();
        for words in
            ["[proxy_plugins.starling]", "enable_remote_snapshot_annotations = \"true\"", "unpack_config"]
        {
            assert!(missing.contains(words), "{missing}");
        }
        for exports in [&[][..], &[("root", "/r")], &[(ANNOTATIONS, "false")]] {
            let unlabelled = judge(Some(&plugin(exports)), "starling").unwrap_err().to_string();
            assert!(unlabelled.contains("[proxy_plugins.starling.exports]"), "{unlabelled}");
        }
        judge(Some(&plugin(&[(ANNOTATIONS, "true")])), "starling").unwrap();
    }

    #[test]
    fn a_plugin_that_did_not_start_is_told_apart() {
        let mut broken = plugin(&[(ANNOTATIONS, "true")]);
        broken.init_err = Some(Status { code: 2, message: "no socket".into() });
        assert!(judge(Some(&broken), "starling").unwrap_err().to_string().contains("no socket"));
    }
}
