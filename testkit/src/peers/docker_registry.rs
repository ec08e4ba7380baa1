//! Debian's `docker-registry`: the reference implementation of the registry protocol.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::process::Process;
use crate::{
    loopback_certificate::{self, Certificate},
    token_service::{ISSUER, SERVICE, TokenService},
};

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
    data: PathBuf,
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
    /// Starts a registry that keeps what it is given below `dir`, with all that an earlier one was given there.
    ///
    /// # Errors
    /// The program is missing, or does not listen in time: the message carries its log.
    pub fn start(dir: &Path, access: Access) -> Result<Self> {
        let Access::Protected = access else {
            return Self::run(dir, "http: { addr: '127.0.0.1:0' }\n", None);
        };
        let identity = loopback_certificate::issue()?;
        let authority = write(dir, "authority.pem", &identity.authority_pem)?;
        let htpasswd = write(dir, "htpasswd", HTPASSWD)?;
        let auth = format!("auth: {{ htpasswd: {{ realm: tests, path: {} }} }}\n", htpasswd.display());
        Self::run(dir, &(https(dir, &identity)? + &auth), Some(authority))
    }

    /// The same, for those who have a token of `tokens`, whose certificate it shares; in clear text if it is to
    /// stand behind something that speaks TLS for it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_tokens(dir: &Path, tokens: &TokenService, behind: bool) -> Result<Self> {
        let authority = write(dir, "authority.pem", tokens.authority())?;
        let signer = write(dir, "signer.pem", tokens.signer_pem())?;
        let auth = format!(
            "auth: {{ token: {{ realm: '{}', service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {} }} }}\n",
            tokens.realm(),
            signer.display()
        );
        let http = if behind {
            "http: { addr: '127.0.0.1:0' }\n".to_owned()
        } else {
            https(dir, tokens.certificate())?
        };
        Self::run(dir, &(http + &auth), Some(authority))
    }

    /// Starts it with these parts of its configuration.
    fn run(dir: &Path, config: &str, authority: Option<PathBuf>) -> Result<Self> {
        let program = program().with_context(|| missing().unwrap_or_default())?;
        let data = dir.join("data");
        let config = format!(
            "version: 0.1\nlog: {{ level: info, formatter: text }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\n{config}",
            data.display()
        );
        let path = write(dir, "config.yml", &config)?;
        let log = dir.join("registry.log");
        // What an earlier one said is not this one's port.
        let _ = fs::remove_file(&log);
        let mut process = Process::spawn(PROGRAM, Command::new(program).arg("serve").arg(path), &log)?;
        let mut port = None;
        process.wait_until(START_LIMIT, || {
            port = listening(&fs::read_to_string(&log).unwrap_or_default());
            port.is_some()
        })?;
        Ok(Self { _process: process, authority, data, port: port.context("the registry's port")? })
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

    /// Where it keeps blobs, each as `xx/<digest>/data`.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.data.join("docker/registry/v2/blobs/sha256")
    }
}

/// The part of the configuration that has it listen with TLS.
fn https(dir: &Path, identity: &Certificate) -> Result<String> {
    let certificate = write(dir, "certificate.pem", &identity.certificate.pem())?;
    let key = write(dir, "key.pem", &identity.key.serialize_pem())?;
    Ok(format!(
        "http: {{ addr: '127.0.0.1:0', tls: {{ certificate: {}, key: {} }} }}\n",
        certificate.display(),
        key.display()
    ))
}

fn write(dir: &Path, name: &str, content: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::create_dir_all(dir)?;
    fs::write(&path, content)?;
    Ok(path)
}

/// The port in the line that it logs when it listens.
fn listening(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once("listening on 127.0.0.1:")?;
    // The line may not be whole yet.
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest.get(..end)?.parse().ok()
}
