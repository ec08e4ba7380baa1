//! What an image's configuration says about the program that is started.

use serde::Deserialize;

/// Where programs are when `PATH` is not set (Docker's and containerd's default).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Directories in a `PATH`: more is a mistake or worse.
const MOST_DIRECTORIES: usize = 64;
/// Words of a command line that are looked at: `tini -- docker-entrypoint.sh node server.js`.
const MOST_WORDS: usize = 16;

/// The entry point of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The program, and its arguments, which may be files too. Never empty.
    words: Vec<String>,
    path: Vec<String>,
    directory: String,
    libraries: Vec<String>,
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
        let words: Vec<_> = words.filter(|word| !word.is_empty()).take(MOST_WORDS).collect();
        if words.is_empty() {
            return None;
        }
        let variables = settings.env.unwrap_or_default();
        let variable =
            |name: &str| variables.iter().find_map(|set| set.strip_prefix(name)?.strip_prefix('='));
        let path = variable("PATH").unwrap_or(PATH);
        let path = path.split(':').filter(|directory| directory.starts_with('/'));
        let directory = settings.working_dir.filter(|directory| directory.starts_with('/'));
        Some(Self {
            words,
            path: path.take(MOST_DIRECTORIES).map(str::to_owned).collect(),
            directory: directory.unwrap_or_else(|| "/".to_owned()),
            libraries: variable("LD_LIBRARY_PATH").map(super::libraries::directories).unwrap_or_default(),
        })
    }

    /// Where the program may be, the likeliest first; and the same for what it is told to run or read.
    pub(super) fn candidates(&self) -> Vec<Vec<String>> {
        let (program, arguments) = self.words.split_at(1);
        let program = program.iter().map(|word| self.search(word));
        let argument = |word: &String| {
            let mut places = self.search(word);
            places.push(format!("{}/{word}", self.directory));
            places
        };
        let is_file = |word: &&String| !word.starts_with('-') && !word.contains(char::is_whitespace);
        program.chain(arguments.iter().filter(is_file).map(argument)).collect()
    }

    /// The directories of `LD_LIBRARY_PATH`.
    pub(super) fn libraries(&self) -> Vec<String> {
        self.libraries.clone()
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
        let first = |entry: Option<Entry>| entry.unwrap().candidates().remove(0);
        let named = entry(r#"{"config":{"Entrypoint":["/bin/a","x"],"Cmd":["b"]}}"#);
        assert_eq!(first(named), ["/bin/a"]);
        let by_path = r#"{"config":{"Entrypoint":null,"Cmd":["b"],"Env":["A=1","PATH=/x:relative:/y"]}}"#;
        assert_eq!(first(entry(by_path)), ["/x/b", "/y/b"]);
        let here = entry(r#"{"config":{"Cmd":["./run"],"WorkingDir":"/srv"}}"#);
        assert_eq!(first(here), ["/srv/./run"]);
        assert_eq!(first(entry(r#"{"config":{"Cmd":["b"]}}"#)).len(), 6);
        for nothing in ["", "{}", r#"{"config":{}}"#, r#"{"config":{"Cmd":[]}}"#, r#"{"config":{"Cmd":7}}"#] {
            assert_eq!(entry(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn arguments_may_be_files_too() {
        let config = r#"{"config":{"Entrypoint":["/tini","--","start"],"Cmd":["app.py","a b"],
            "Env":["PATH=/bin","LD_LIBRARY_PATH=/x:y:/z"],"WorkingDir":"/srv"}}"#;
        let entry = Entry::parse(config.as_bytes()).unwrap();
        let [program, start, script] = entry.candidates().try_into().unwrap();
        assert_eq!(program, ["/tini"]);
        assert_eq!(
            (start, script),
            (
                vec!["/bin/start".into(), "/srv/start".into()],
                vec!["/bin/app.py".into(), "/srv/app.py".to_owned()]
            )
        );
        assert_eq!(entry.libraries(), ["/x", "/z"]);
        let many = format!(r#"{{"config":{{"Cmd":[{}"x"]}}}}"#, r#""y","#.repeat(1000));
        assert_eq!(Entry::parse(many.as_bytes()).unwrap().candidates().len(), MOST_WORDS);
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
