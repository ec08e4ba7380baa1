//! Debian's `docker-registry`: the reference implementation of the registry protocol.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::process::Process;
use crate::loopback_certificate::{self, Certificate};

/// How long it may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(20);
/// The program, on `PATH` or unpacked by the set-up.
const PROGRAM: &str = "docker-registry";
/// The user of a protected registry.
pub const USER: &str = "tester";
/// Its password.
pub const PASSWORD: &str = "secret of the tests";
/// The password as `htpasswd -B` writes it: bcrypt is the only form that the registry takes.
const HTPASSWD: &str = "tester:$2y$05$c3RhcmxpbmctdGVzdHMuLuTCh9TA5v5NWJ203kSoJlJjySLQAZF1G\n";

/// How a registry is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// In clear text, by anyone.
    Open,
    /// With TLS, by a certificate of its own authority, and with a password.
    Protected,
}

/// A running registry on the loopback address; ended when dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    _process: Process,
    authority: Option<PathBuf>,
    port: u16,
}

/// Where the set-up unpacks it: installed, the package would start a service.
pub fn unpacked_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/docker-registry")
}

/// Why there is no registry to start, if so.
pub fn missing() -> Option<String> {
    program().is_none().then(|| format!("needs {PROGRAM}: cargo xtask setup unpacks it"))
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = vec![unpacked_dir().join("usr/bin")];
    places.extend(std::env::split_paths(&path));
    places.into_iter().map(|dir| dir.join(PROGRAM)).find(|program| program.is_file())
}

// === impl DockerRegistry ===

impl DockerRegistry {
    /// Starts an empty registry that keeps what it is given below `dir`.
    ///
    /// # Errors
    /// The program is missing, or does not listen in time: the message carries its log.
    pub fn start(dir: &Path, access: Access) -> Result<Self> {
        let program = program().with_context(|| missing().unwrap_or_default())?;
        fs::create_dir_all(dir)?;
        let mut config = format!(
            "version: 0.1\nlog: {{ level: info, formatter: text }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\n",
            dir.join("data").display()
        );
        let mut authority = None;
        match access {
            Access::Open => config += "http: { addr: '127.0.0.1:0' }\n",
            Access::Protected => {
                let Certificate { authority_pem, certificate, key } = loopback_certificate::issue()?;
                let file = |name: &str, content: String| {
                    let path = dir.join(name);
                    fs::write(&path, content).map(|()| path)
                };
                let certificate = file("certificate.pem", certificate.pem())?;
                let key = file("key.pem", key.serialize_pem())?;
                let htpasswd = file("htpasswd", HTPASSWD.to_owned())?;
                authority = Some(file("authority.pem", authority_pem)?);
                config += &format!(
                    "http: {{ addr: '127.0.0.1:0', tls: {{ certificate: {}, key: {} }} }}\n\
                     auth: {{ htpasswd: {{ realm: tests, path: {} }} }}\n",
                    certificate.display(),
                    key.display(),
                    htpasswd.display()
                );
            }
        }
        let path = dir.join("config.yml");
        fs::write(&path, config)?;
        let log = dir.join("registry.log");
        let mut process = Process::spawn(PROGRAM, Command::new(program).arg("serve").arg(path), &log)?;
        let mut port = None;
        process.wait_until(START_LIMIT, || {
            port = listening(&fs::read_to_string(&log).unwrap_or_default());
            port.is_some()
        })?;
        Ok(Self { _process: process, authority, port: port.context("the registry's port")? })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, as images name it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate of the authority that vouches for a protected registry.
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }
}

/// The port in the line that it logs when it listens.
fn listening(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once("listening on 127.0.0.1:")?;
    // The line may not be whole yet.
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest.get(..end)?.parse().ok()
}
