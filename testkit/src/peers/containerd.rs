//! A containerd of its own in a scratch directory, with Starling as a proxy plugin.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::{
    go_tools::{self, CONTAINERD_TOOLS},
    process::Process,
};

/// How long containerd may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How the plugin is registered.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// The snapshotter's name in containerd. BuildKit is lazy only with the name `stargz`.
    pub name: String,
    /// The socket of `starlingd`.
    pub address: PathBuf,
    /// The root of `starlingd`, exported so that clients can account for its disk.
    pub root: PathBuf,
}

/// A running containerd; stopped when dropped, with its containers.
#[derive(Debug)]
pub struct Containerd {
    process: Process,
    dir: PathBuf,
    tools: PathBuf,
    limits: Option<Duration>,
}

/// One run of `ctr`.
#[derive(Debug)]
pub struct CtrOutput {
    /// What it printed.
    pub stdout: String,
    /// What it said on its error stream.
    pub stderr: String,
    /// Whether it exited with 0.
    pub ok: bool,
}

// === impl Containerd ===

impl Containerd {
    /// Starts containerd with everything it keeps below `dir`.
    ///
    /// # Errors
    /// The tools cannot be built, or containerd does not answer in time: the message
    /// carries the end of its log.
    pub fn start(dir: &Path, plugin: Option<&Plugin>) -> Result<Self> {
        Self::start_configured(dir, plugin, "")
    }

    /// As [`Self::start`], serving the container runtime interface too, whose images go to the plugin.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_cri(dir: &Path, plugin: &Plugin) -> Result<Self> {
        let text = configuration(dir, Some(plugin)).replace(WITHOUT_CRI, "");
        Self::start_from(dir, text + &cri(dir, plugin))
    }

    /// As [`Self::start`], with `more` at the end of the configuration file.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_configured(dir: &Path, plugin: Option<&Plugin>, more: &str) -> Result<Self> {
        Self::start_from(dir, configuration(dir, plugin) + more)
    }

    fn start_from(dir: &Path, configuration: String) -> Result<Self> {
        for tool in CONTAINERD_TOOLS {
            go_tools::ensure(tool)?;
        }
        fs::create_dir_all(dir)?;
        fs::write(dir.join("config.toml"), configuration)?;
        let tools = go_tools::bin_dir().canonicalize()?;
        let process = spawn(dir, &tools)?;
        let mut containerd = Self { process, dir: dir.to_owned(), tools, limits: None };
        containerd.wait_until_ready()?;
        Ok(containerd)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let mut version = self.ctr_command();
        version.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
        let address = self.address();
        let ready = || address.exists() && version.status().is_ok_and(|status| status.success());
        self.process.wait_until(START_LIMIT, ready)
    }

    /// Ends it by SIGKILL; its containers go on, and nobody answers until [`Self::start_again`].
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.process.end(Signal::SIGKILL).map(drop)
    }

    /// Starts it again after it ended, with all that it left.
    ///
    /// # Errors
    /// It does not answer in time.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = spawn(&self.dir, &self.tools)?;
        self.wait_until_ready()
    }

    /// Ends every run of `ctr` that takes longer than `limit`, with an error.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.limits = Some(limit);
        self
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// containerd's socket.
    pub fn address(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// What containerd logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A `ctr` that talks to this containerd, ready for its arguments.
    pub fn ctr_command(&self) -> Command {
        let mut command = match self.limits {
            Some(limit) => {
                let mut timeout = Command::new("timeout");
                timeout.arg(limit.as_secs().max(1).to_string()).arg(self.tools.join("ctr"));
                timeout
            }
            None => Command::new(self.tools.join("ctr")),
        };
        command
            .arg("--address")
            .arg(self.address())
            .env("PATH", super::path_with(&self.tools))
            .stdin(Stdio::null());
        command
    }

    /// Runs `ctr` with `args`, whatever its exit status.
    ///
    /// # Errors
    /// `ctr` cannot be started.
    pub fn try_ctr(&self, args: &[&str]) -> Result<CtrOutput> {
        let Output { status, stdout, stderr } = self.ctr_command().args(args).output().context("run ctr")?;
        Ok(CtrOutput {
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            ok: status.success(),
        })
    }

    /// Runs `ctr` with `args` and gives what it printed.
    ///
    /// # Errors
    /// `ctr` fails: the message carries its output and the end of containerd's log.
    pub fn ctr(&self, args: &[&str]) -> Result<String> {
        let output = self.try_ctr(args)?;
        if !output.ok {
            bail!("ctr {}: {}{}", args.join(" "), output.stdout, output.stderr);
        }
        Ok(output.stdout)
    }

    /// Digests in the content store of containerd's default namespace.
    ///
    /// # Errors
    /// As [`Self::ctr`].
    pub fn content(&self) -> Result<Vec<String>> {
        Ok(self.ctr(&["content", "ls", "-q"])?.lines().map(str::to_owned).collect())
    }

    /// Ends its containers and itself.
    pub fn stop(&mut self) {
        self.stop_containers();
        let _ = self.process.end(Signal::SIGTERM);
    }

    fn stop_containers(&mut self) {
        // A client would wait for it to come back.
        if self.process.has_ended() {
            return;
        }
        let Ok(tasks) = self.ctr(&["tasks", "ls", "-q"]) else { return };
        for task in tasks.lines() {
            let _ = self.try_ctr(&["tasks", "kill", "-s", "SIGKILL", task]);
            let _ = self.try_ctr(&["tasks", "delete", "--force", task]);
            let _ = self.try_ctr(&["containers", "delete", task]);
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.stop_containers();
    }
}

fn spawn(dir: &Path, tools: &Path) -> Result<Process> {
    let mut command = Command::new(tools.join("containerd"));
    command.arg("--config").arg(dir.join("config.toml")).env("PATH", super::path_with(tools));
    Process::spawn("containerd", &mut command, &dir.join("containerd.log"))
}

/// What leaves the container runtime interface out.
const WITHOUT_CRI: &str = r#"disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]"#;

/// The container runtime interface, with nothing outside of `dir`.
fn cri(dir: &Path, plugin: &Plugin) -> String {
    let (dir, name) = (dir.display(), &plugin.name);
    format!(
        r#"
[plugins.'io.containerd.nri.v1.nri']
  disable = true

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "{name}"
  disable_snapshot_annotations = false

[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "{dir}/certs.d"

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{dir}/cni/bin"]
  conf_dir = "{dir}/cni/conf"
"#
    )
}

/// containerd's configuration: version 3, without CRI, with the transfer service unpacking into the plugin
/// and handing it the labels (`enable_remote_snapshot_annotations`, containerd 2.1 and newer).
fn configuration(dir: &Path, plugin: Option<&Plugin>) -> String {
    let dir = dir.display();
    let mut text = format!(
        r#"version = 3
root = "{dir}/root"
state = "{dir}/state"
{WITHOUT_CRI}

[grpc]
  address = "{dir}/containerd.sock"

[ttrpc]
  address = "{dir}/containerd.sock.ttrpc"

[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "linux"
  snapshotter = "overlayfs"
"#
    );
    if let Some(Plugin { name, address, root }) = plugin {
        text += &format!(
            r#"
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "linux"
  snapshotter = "{name}"

[proxy_plugins.{name}]
  type = "snapshot"
  address = "{address}"
  [proxy_plugins.{name}.exports]
    root = "{root}"
    enable_remote_snapshot_annotations = "true"
"#,
            address = address.display(),
            root = root.display(),
        );
    }
    text
}
