//! stargz-snapshotter, to compare with: the published library behind a small main in `benches/rival`.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use super::{containerd::Plugin, go_tools, process::Process};

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running stargz-snapshotter; ended when dropped.
#[derive(Debug)]
pub struct Rival {
    process: Process,
    dir: PathBuf,
}

// === impl Rival ===

impl Rival {
    /// Builds it, if that was not done yet, and starts it with its default configuration below `dir`.
    ///
    /// # Errors
    /// It cannot be built, or does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_program(&Self::build()?, dir, "")
    }

    /// Builds it, if that was not done yet, and gives the program.
    ///
    /// # Errors
    /// No Go, or its modules cannot be fetched.
    pub fn build() -> Result<PathBuf> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/rival");
        go_tools::build_module("stargz-rival", &source, ".")
    }

    /// Starts `program`, which is what [`Self::build`] gave, with `config` as its configuration file.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start_program(program: &Path, dir: &Path, config: &str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let configuration = dir.join("config.toml");
        fs::write(&configuration, config)?;
        let address = dir.join("rival.sock");
        let mut command = Command::new(program);
        command.arg("--address").arg(&address).arg("--root").arg(dir.join("root"));
        command.arg("--config").arg(&configuration);
        let mut process = Process::spawn("stargz-rival", &mut command, &dir.join("rival.log"))?;
        process.wait_until(START_LIMIT, || UnixStream::connect(&address).is_ok())?;
        Ok(Self { process, dir: dir.to_owned() })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How containerd reaches it.
    pub fn plugin(&self, name: &str) -> Plugin {
        Plugin { name: name.to_owned(), address: self.dir.join("rival.sock"), root: self.dir.join("root") }
    }
}
