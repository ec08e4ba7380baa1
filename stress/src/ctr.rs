//! `ctr`, bounded in time, for many threads: containerd may be gone while one of them asks.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use testkit::peers::{containerd::Containerd, go_tools};

/// How the plugin is named in containerd.
pub(crate) const PLUGIN: &str = "starling";
/// A call that takes longer is cut off and counts as failed.
const SECONDS: &str = "60";

/// How to reach a containerd.
#[derive(Debug, Clone)]
pub(crate) struct Ctr {
    program: PathBuf,
    address: PathBuf,
}

// === impl Ctr ===

impl Ctr {
    pub(crate) fn new(containerd: &Containerd) -> Result<Self> {
        Ok(Self { program: go_tools::bin_dir().canonicalize()?.join("ctr"), address: containerd.address() })
    }

    /// What `ctr` prints for `arguments`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", SECONDS]).arg(&self.program).arg("--connect-timeout").arg("2s");
        command.arg("--address").arg(&self.address).args(arguments).stdin(std::process::Stdio::null());
        let output = command.output().context("run ctr")?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("ctr {}: {stdout}{said}({})", arguments.join(" "), output.status);
        }
        Ok(stdout)
    }

    /// The words of each line but the first, of what `ctr` prints for `arguments`.
    pub(crate) fn first_words(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let text = self.run(arguments)?;
        Ok(text.lines().skip(1).filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect())
    }
}
