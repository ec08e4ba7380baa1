//! The command line.

use std::{
    ffi::{CString, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

pub(crate) const USAGE: &str = "\
usage: starling-holder [--socket PATH] [--keeper PATH] [--] PROGRAM [ARGUMENT...]
       starling-holder --keep [--socket PATH] [--outside DIRECTORY]

Runs PROGRAM, starts it again whenever it ends, and keeps the descriptors that it sends meanwhile.
SIGTERM and SIGINT end both; SIGHUP ends PROGRAM, which is then started again from its file.

  --socket PATH        where PROGRAM sends to [/run/starling/holder.sock]
  --keeper PATH        the socket of a holder that keeps the descriptors too, should this one be killed
  --keep               only keep
  --outside DIRECTORY  keep in the cgroups and namespaces of a process, named by its directory in /proc, in the
                       background; nothing is done if the socket is answered already
  --version, --help";

const DEFAULT_SOCKET: &str = "/run/starling/holder.sock";

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) socket: PathBuf,
    pub(crate) task: Task,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Help,
    Version,
    Keep { outside: Option<PathBuf> },
    Run { keeper: Option<PathBuf>, command: Vec<CString> },
}

// === impl Arguments ===

impl Arguments {
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let (mut socket, mut keeper, mut outside) = (PathBuf::from(DEFAULT_SOCKET), None, None);
        let (mut keep, mut command) = (false, Vec::new());
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .map(PathBuf::from)
                    .ok_or_else(|| format!("{} needs a value", argument.display()))
            };
            match argument.to_str() {
                Some("--help" | "-h") => return Ok(Self { socket, task: Task::Help }),
                Some("--version") => return Ok(Self { socket, task: Task::Version }),
                Some("--socket") => socket = value()?,
                Some("--keeper") => keeper = Some(value()?),
                Some("--outside") => outside = Some(value()?),
                Some("--keep") => keep = true,
                Some("--") => command.extend(arguments.by_ref()),
                Some(option) if option.starts_with('-') => return Err(format!("unknown option {option}")),
                _ => {
                    command.push(argument);
                    command.extend(arguments.by_ref());
                }
            }
        }
        let task = match (keep, command.is_empty()) {
            (true, true) if keeper.is_none() => Task::Keep { outside },
            (true, _) => return Err("--keep takes neither a program nor --keeper".to_owned()),
            (false, true) => return Err("name a program, or --keep".to_owned()),
            (false, false) if outside.is_some() => return Err("--outside goes with --keep".to_owned()),
            (false, false) => Task::Run { keeper, command: c_strings(command)? },
        };
        Ok(Self { socket, task })
    }
}

fn c_strings(words: Vec<OsString>) -> Result<Vec<CString>, String> {
    let convert = |word: OsString| {
        let shown = String::from_utf8_lossy(word.as_bytes()).into_owned();
        CString::new(word.into_vec()).map_err(|_| format!("a NUL in {shown:?}"))
    };
    words.into_iter().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_programs_own_options_are_left_to_it() {
        let command = ["starlingd", "--root", "/r", "--", "--keep"].map(|word| CString::new(word).unwrap());
        let task = Task::Run { keeper: None, command: command.to_vec() };
        let socket = PathBuf::from(DEFAULT_SOCKET);
        let expected = Ok(Arguments { socket, task });
        assert_eq!(parse("starlingd --root /r -- --keep"), expected);
        assert_eq!(parse("-- starlingd --root /r -- --keep"), expected);
    }

    #[test]
    fn options_come_first() {
        let keep = Task::Keep { outside: Some("/proc/1".into()) };
        let expected = Ok(Arguments { socket: "/s".into(), task: keep });
        assert_eq!(parse("--keep --socket /s --outside /proc/1"), expected);
        let run = parse("--keeper /k --socket /s x").unwrap();
        assert_eq!(run.task, Task::Run { keeper: Some("/k".into()), command: vec![c"x".to_owned()] });
        assert_eq!(parse("--help x").unwrap().task, Task::Help);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in
            ["", "--", "--socket", "--sockets /s x", "--keep x", "--keep --keeper /k", "--outside /proc/1 x"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
