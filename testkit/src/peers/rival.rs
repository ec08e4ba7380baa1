//! stargz-snapshotter, to compare with: the published library behind a small main in `benches/rival`.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{containerd::Plugin, go_tools};

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running stargz-snapshotter; ended when dropped.
#[derive(Debug)]
pub struct Rival {
    child: Child,
    dir: PathBuf,
}

// === impl Rival ===

impl Rival {
    /// Builds it, if that was not done yet, and starts it with its default configuration below `dir`.
    ///
    /// # Errors
    /// It cannot be built, or does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/rival");
        let program = go_tools::build_module("stargz-rival", &source, ".")?;
        fs::create_dir_all(dir)?;
        let log = File::create(dir.join("rival.log"))?;
        let child = Command::new(program)
            .arg("--address")
            .arg(dir.join("rival.sock"))
            .arg("--root")
            .arg(dir.join("root"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start stargz-rival")?;
        let rival = Self { child, dir: dir.to_owned() };
        let started = Instant::now();
        while UnixStream::connect(dir.join("rival.sock")).is_err() {
            if started.elapsed() > START_LIMIT {
                let log = fs::read_to_string(dir.join("rival.log")).unwrap_or_default();
                bail!("stargz-rival did not answer within {START_LIMIT:?}: {log}");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(rival)
    }

    /// How containerd reaches it.
    pub fn plugin(&self, name: &str) -> Plugin {
        Plugin { name: name.to_owned(), address: self.dir.join("rival.sock"), root: self.dir.join("root") }
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}
