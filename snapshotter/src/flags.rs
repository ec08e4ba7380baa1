//! The daemon's command line: the flags of `containerd-stargz-grpc`, in Go's style and in the usual one.
//!
//! Go's flag package takes `-name value`, `--name value`, `-name=value` and `--name=value`; so does this. Called by
//! another name (a link named `containerd-stargz-grpc`), the daemon is the same.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::Parser;

use crate::logging::Level;

/// Where containerd connects by default.
pub const DEFAULT_ADDRESS: &str = "/run/starling/starling.sock";
/// Where snapshots and layers are kept by default.
pub const DEFAULT_ROOT: &str = "/var/lib/starling";

/// starlingd, a containerd snapshotter that starts containers before their image is downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "starlingd", disable_version_flag = true)]
pub struct Flags {
    /// The unix socket on which containerd is served.
    #[arg(long, default_value = DEFAULT_ADDRESS)]
    pub address: PathBuf,
    /// The configuration file; the default one, /etc/starling/config.toml, may be missing.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// The least level that is logged: trace, debug, info, warn, error, fatal or panic.
    #[arg(long, default_value_t = Level::Info)]
    pub log_level: Level,
    /// The directory that holds everything that must survive a restart.
    #[arg(long, default_value = DEFAULT_ROOT)]
    pub root: PathBuf,
    /// Print the version and exit.
    #[arg(long)]
    pub version: bool,
}

/// The names of all flags, for Go's style.
const NAMES: [&str; 6] = ["address", "config", "log-level", "root", "version", "help"];

// === impl Flags ===

impl Flags {
    /// The flags of this process; prints help or what is wrong and exits if there is nothing to run.
    pub fn from_command_line() -> Self {
        Self::parse_from(std::env::args_os().map(from_go))
    }

    /// Reads flags from `arguments`, the first of which is the program's name.
    ///
    /// # Errors
    /// What clap finds wrong with them.
    pub fn from_arguments<I: IntoIterator<Item = OsString>>(arguments: I) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments.into_iter().map(from_go))
    }

    /// What `--version` prints: the name by which the program was called, and the version.
    pub fn version_line() -> String {
        let called = std::env::args_os().next().map(PathBuf::from);
        let name = called.as_deref().and_then(|path| path.file_name()).unwrap_or(OsStr::new("starlingd"));
        format!("{} v{}", name.display(), crate::VERSION)
    }
}

/// `-name` as `--name`, where name is a flag of ours.
fn from_go(argument: OsString) -> OsString {
    let Some(text) = argument.to_str() else { return argument };
    let Some(rest) = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else { return argument };
    let name = rest.split('=').next().unwrap_or(rest);
    if NAMES.contains(&name) { format!("--{rest}").into() } else { argument }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Result<Flags, clap::Error> {
        let program = std::iter::once("containerd-stargz-grpc");
        Flags::from_arguments(program.chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_defaults_are_ours() {
        let flags = flags("").unwrap();
        assert_eq!(flags.address, PathBuf::from("/run/starling/starling.sock"));
        assert_eq!((flags.config, flags.root), (None, PathBuf::from("/var/lib/starling")));
        assert_eq!((flags.log_level, flags.version), (Level::Info, false));
    }

    #[test]
    fn gos_style_and_the_usual_one_are_the_same() {
        let usual = flags("--address /a --config /c --log-level debug --root /r").unwrap();
        assert_eq!(usual, flags("-address /a -config /c -log-level debug -root /r").unwrap());
        assert_eq!(usual, flags("-address=/a --config=/c -log-level=debug -root=/r").unwrap());
        assert_eq!(usual.config, Some(PathBuf::from("/c")));
        assert!(flags("-version").unwrap().version && flags("--version").unwrap().version);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["-addres /a", "--log-level loud", "stray", "--root"] {
            assert!(flags(line).is_err(), "{line}");
        }
    }
}
