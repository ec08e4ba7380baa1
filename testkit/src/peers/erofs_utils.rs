//! erofs-utils of a newer Debian than the machine's, for containerd's erofs snapshotter: it needs 1.8.2 to be
//! as quick as it is documented to be.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use super::go_tools;

/// The Debian release that it comes from: erofs-utils 1.8.6.
const RELEASE: &str = "trixie";

/// Puts a `mkfs.erofs` beside the Go tools, where containerd looks for programs, unless the machine's own is new
/// enough. It runs with the libraries of its own release, which are fetched with it; nothing is installed.
///
/// # Errors
/// Not root, no debootstrap, or it cannot reach Debian's packages.
pub fn ensure() -> Result<()> {
    if new_enough(Path::new("mkfs.erofs")) {
        return Ok(());
    }
    let bin = go_tools::bin_dir();
    fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
    let bin = bin.canonicalize()?;
    let lock = File::create(bin.join(".erofs-utils.lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).context("lock the tools")?;
    let program = bin.join("mkfs.erofs");
    if program.exists() {
        return Ok(());
    }
    let root = bin.join(".erofs-utils");
    fetch(&bin, &root)?;
    let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let loader = match std::env::consts::ARCH {
        "x86_64" => "ld-linux-x86-64.so.2",
        "aarch64" => "ld-linux-aarch64.so.1",
        other => bail!("no loader is known for {other}"),
    };
    let text = format!(
        "#!/bin/sh\nexec {libraries}/{loader} --library-path {libraries} {root}/usr/bin/mkfs.erofs \"$@\"\n",
        libraries = libraries.display(),
        root = root.display(),
    );
    let partial = bin.join(".mkfs.erofs");
    fs::write(&partial, text)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
    if !new_enough(&partial) {
        bail!("the mkfs.erofs of Debian {RELEASE} does not run here");
    }
    Ok(fs::rename(partial, program)?)
}

/// Whether `program` knows `--sort`, which came with 1.8.2: without it containerd's documented options fail.
fn new_enough(program: &Path) -> bool {
    let help = Command::new(program).arg("--help").stdin(Stdio::null()).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).contains("--sort"))
}

/// Unpacks the program and its libraries into `root`.
fn fetch(dir: &Path, root: &Path) -> Result<()> {
    let fetched = tempfile::Builder::new().prefix("erofs-utils-").tempdir_in(dir)?;
    run(Command::new("debootstrap")
        .args(["--download-only", "--variant=minbase", "--include=erofs-utils", RELEASE])
        .arg(fetched.path())
        .stdout(Stdio::null()))?;
    fs::create_dir_all(root)?;
    for archive in fs::read_dir(fetched.path().join("var/cache/apt/archives"))? {
        let path = archive?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // The program and all libraries: the rest is the smallest Debian.
        if ["erofs-utils", "lib", "zlib1g"].iter().any(|wanted| name.starts_with(wanted)) {
            run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(root))?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
