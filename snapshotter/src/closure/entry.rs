//! What an image's configuration says about the program that is started.

use serde::Deserialize;

/// Where programs are when `PATH` is not set (Docker's and containerd's default).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Directories in a `PATH`: more is a mistake or worse.
const MOST_DIRECTORIES: usize = 64;

/// The entry point of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    program: String,
    path: Vec<String>,
    directory: String,
}

/// The first line of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) program: String,
    /// What `env` looks for, if that is the program.
    pub(super) argument: Option<String>,
}

#[derive(Deserialize)]
struct Document {
    config: Option<Settings>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Settings {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
}

// === impl Entry ===

impl Entry {
    /// Reads an image configuration. None if it names no program.
    pub(super) fn parse(config: &[u8]) -> Option<Self> {
        let settings = serde_json::from_slice::<Document>(config).ok()?.config?;
        let words = settings.entrypoint.into_iter().chain(settings.cmd).flatten();
        let program = words.into_iter().find(|word| !word.is_empty())?;
        let variables = settings.env.unwrap_or_default();
        let path = variables.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(PATH);
        let path = path.split(':').filter(|directory| directory.starts_with('/'));
        let directory = settings.working_dir.filter(|directory| directory.starts_with('/'));
        Some(Self {
            program,
            path: path.take(MOST_DIRECTORIES).map(str::to_owned).collect(),
            directory: directory.unwrap_or_else(|| "/".to_owned()),
        })
    }

    /// Where the program may be, the likeliest first.
    pub(super) fn candidates(&self) -> Vec<String> {
        self.search(&self.program)
    }

    /// Where a program with this name may be.
    pub(super) fn search(&self, name: &str) -> Vec<String> {
        if name.starts_with('/') {
            vec![name.to_owned()]
        } else if name.contains('/') {
            vec![format!("{}/{name}", self.directory)]
        } else {
            self.path.iter().map(|directory| format!("{directory}/{name}")).collect()
        }
    }
}

/// The interpreter that the first line of a script names (execve(2)).
pub(super) fn interpreter(head: &[u8]) -> Option<Script> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let program = words.next().filter(|program| program.starts_with('/'))?.to_owned();
    let is_env = program.ends_with("/env");
    let argument = words.find(|word| !word.starts_with('-') && !word.contains('='));
    Some(Script { argument: argument.filter(|_| is_env).map(str::to_owned), program })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_as_the_runtime_does() {
        let entry = |config: &str| Entry::parse(config.as_bytes());
        let named = entry(r#"{"config":{"Entrypoint":["/bin/a","x"],"Cmd":["b"]}}"#).unwrap();
        assert_eq!(named.candidates(), ["/bin/a"]);
        let by_path = r#"{"config":{"Entrypoint":null,"Cmd":["b"],"Env":["A=1","PATH=/x:relative:/y"]}}"#;
        assert_eq!(entry(by_path).unwrap().candidates(), ["/x/b", "/y/b"]);
        let here = entry(r#"{"config":{"Cmd":["./run"],"WorkingDir":"/srv"}}"#).unwrap();
        assert_eq!(here.candidates(), ["/srv/./run"]);
        assert_eq!(entry(r#"{"config":{"Cmd":["b"]}}"#).unwrap().candidates().len(), 6);
        for nothing in ["", "{}", r#"{"config":{}}"#, r#"{"config":{"Cmd":[]}}"#, r#"{"config":{"Cmd":7}}"#] {
            assert_eq!(entry(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn scripts_name_their_interpreter() {
        let script = |line: &str| interpreter(line.as_bytes()).map(|s| (s.program, s.argument));
        assert_eq!(script("#!/bin/sh -e\nexit"), Some(("/bin/sh".into(), None)));
        let env = Some(("/usr/bin/env".into(), Some("python3".into())));
        assert_eq!(script("#! /usr/bin/env -S A=1 python3 -u\n"), env);
        for other in ["", "#!", "#!\n", "#!sh\n", "\u{7f}ELF", "# !/bin/sh"] {
            assert_eq!(script(other), None, "{other}");
        }
    }
}
