//! Whether the containerd that runs has the snapshotter: it reads its configuration at its start only.

use std::path::Path;

use proto::introspection::Plugin;

use super::check::{Check, Remedy};
use crate::pull::{containerd::Containerd, plugin::SNAPSHOTTER_TYPE};

const NAME: &str = "containerd";

pub(super) async fn check(address: &Path, snapshotter: &str) -> Check {
    let plugins = match Containerd::connect(address, "default").await {
        Ok(containerd) => containerd.plugins(SNAPSHOTTER_TYPE).await,
        Err(error) => Err(error),
    };
    match plugins {
        Ok(plugins) => judge(plugins.iter().find(|plugin| plugin.id == snapshotter), snapshotter),
        Err(error) => Check::failure(
            NAME,
            error.to_string(),
            Remedy::new(
                "start it, or name its socket with --containerd",
                vec!["systemctl start containerd".to_owned()],
            ),
        ),
    }
}

fn judge(plugin: Option<&Plugin>, snapshotter: &str) -> Check {
    let restart = || Remedy::run(&["systemctl restart containerd"]);
    match plugin {
        None => Check::failure(NAME, format!("it runs without a snapshotter {snapshotter}"), restart()),
        Some(Plugin { init_err: Some(error), .. }) => Check::failure(
            NAME,
            format!("it could not start its snapshotter {snapshotter}: {}", error.message),
            restart(),
        ),
        Some(_) => Check::ok(NAME, format!("it runs with the snapshotter {snapshotter}")),
    }
}

#[cfg(test)]
mod tests {
    use proto::introspection::Status;

    use super::{super::check::State, *};

    #[test]
    fn a_plugin_that_is_missing_or_did_not_start_needs_a_restart() {
        let mut plugin = Plugin { id: "starling".into(), ..Plugin::default() };
        assert_eq!(judge(Some(&plugin), "starling").state, State::Ok);
        plugin.init_err = Some(Status { code: 2, message: "no socket".into() });
        assert!(judge(Some(&plugin), "starling").found.contains("no socket"));
        assert_eq!(judge(None, "starling").remedy.unwrap().lines, ["systemctl restart containerd"]);
    }
}
