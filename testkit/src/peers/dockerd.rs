//! A Docker Engine of its own on top of a [`Containerd`], with the containerd image store.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{
    containerd::Containerd,
    go_tools::{self, BUILDX, DOCKER_TOOLS},
    process::Process,
};

/// How long the engine may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running Docker Engine; stopped when dropped. No bridge, no firewall rules: containers run with
/// `--network none`.
#[derive(Debug)]
pub struct Dockerd {
    process: Process,
    dir: PathBuf,
    tools: PathBuf,
}

// === impl Dockerd ===

impl Dockerd {
    /// Starts the engine with everything it keeps below `dir`, on `containerd`, with its images in the
    /// snapshotter `snapshotter`.
    ///
    /// # Errors
    /// The tools cannot be built, or the engine does not answer: the message carries its log.
    pub fn start(dir: &Path, containerd: &Containerd, snapshotter: &str) -> Result<Self> {
        for tool in DOCKER_TOOLS {
            go_tools::ensure(tool)?;
        }
        let tools = go_tools::bin_dir().canonicalize()?;
        let plugins = dir.join("client/cli-plugins");
        fs::create_dir_all(&plugins)?;
        fs::copy(tools.join(BUILDX.name), plugins.join("docker-buildx"))?;
        let config = dir.join("daemon.json");
        let settings = json!({
            "data-root": dir.join("root"),
            "exec-root": dir.join("exec"),
            "pidfile": dir.join("pid"),
            "containerd": containerd.address(),
            "hosts": [format!("unix://{}", dir.join("docker.sock").display())],
            "iptables": false,
            "ip6tables": false,
            "bridge": "none",
            "userland-proxy": false,
            "storage-driver": snapshotter,
            "features": { "containerd-snapshotter": true },
            "insecure-registries": ["127.0.0.0/8"],
        });
        fs::write(&config, serde_json::to_vec_pretty(&settings)?)?;
        let mut command = Command::new(tools.join("dockerd"));
        command.arg("--config-file").arg(&config).env("PATH", super::path_with(&tools));
        let process = Process::spawn("dockerd", &mut command, &dir.join("dockerd.log"))?;
        let mut dockerd = Self { process, dir: dir.to_owned(), tools };
        let mut version = dockerd.docker_command();
        version.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
        dockerd.process.wait_until(START_LIMIT, || version.status().is_ok_and(|status| status.success()))?;
        Ok(dockerd)
    }

    /// The client, ready for its arguments.
    pub fn docker_command(&self) -> Command {
        let mut command = Command::new(self.tools.join("docker"));
        command
            .env("DOCKER_HOST", format!("unix://{}", self.dir.join("docker.sock").display()))
            .env("DOCKER_CONFIG", self.dir.join("client"))
            .stdin(Stdio::null());
        command
    }

    /// Runs the client with `args` and gives what it printed.
    ///
    /// # Errors
    /// It fails: the message carries its output.
    pub fn docker(&self, args: &[&str]) -> Result<String> {
        let output = self.docker_command().args(args).output().context("run docker")?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("docker {}: {stdout}{}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(stdout)
    }

    /// What the engine logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
