//! containerd's configuration: the file and what it imports, as one document.
//!
//! Files are read in containerd's order (cmd/containerd/server/config/config.go): imports after the file that names them,
//! a later proxy plugin instead of an earlier one of its name, later keys of plugins instead of earlier ones. Lists are
//! joined. What the keys mean is left to others.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::{check::Remedy, imports};

/// No configuration has more files; one that seems to imports in circles under changing names.
const MOST_FILES: usize = 1000;

/// What the files say together.
#[derive(Debug)]
pub(super) struct Document {
    /// The main file first.
    files: Vec<File>,
    merged: Table,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    table: Table,
}

// === impl Document ===

impl Document {
    /// Reads `path` and what it imports.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let (mut files, mut pending) = (Vec::<File>::new(), VecDeque::from([path.to_owned()]));
        while let Some(path) = pending.pop_front().filter(|_| files.len() < MOST_FILES) {
            if files.iter().any(|file| file.path == path) {
                continue;
            }
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let file = File::parse(&text, path)?;
            pending.extend(imports::of(&file.table, &file.path)?);
            files.push(file);
        }
        Ok(Self::of(files))
    }

    /// A document of one file, whose imports are not read.
    #[cfg(test)]
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self> {
        Ok(Self::of(vec![File::parse(text, path.to_owned())?]))
    }

    fn of(files: Vec<File>) -> Self {
        let mut merged = Table::new();
        for file in &files {
            merge(&mut merged, &file.table, 0);
        }
        // An imported file does not change how the main one is understood.
        if let Some(version) = files.first().and_then(|file| file.table.get("version")) {
            merged.insert("version".to_owned(), version.clone());
        }
        Self { files, merged }
    }

    /// The version by which plugins are named; containerd takes none for 1.
    pub(super) fn version(&self) -> i64 {
        self.get(&["version"]).and_then(Value::as_integer).unwrap_or(1)
    }

    /// The value at `path`.
    pub(super) fn get(&self, path: &[&str]) -> Option<&Value> {
        let (last, tables) = path.split_last()?;
        tables.iter().try_fold(&self.merged, |table, key| table.get(*key)?.as_table())?.get(*last)
    }

    /// The text at `path`.
    pub(super) fn text(&self, path: &[&str]) -> Option<&str> {
        self.get(path).and_then(Value::as_str)
    }

    /// The main file.
    pub(super) fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |file| &file.path)
    }

    /// The files that were read beside the main one.
    pub(super) fn imported(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().skip(1).map(|file| file.path.as_path())
    }

    /// Add `lines` to the main file.
    pub(super) fn add(&self, lines: Vec<String>) -> Remedy {
        add_to(self.path(), lines)
    }

    /// Set `lines` in the table at `path`, which is headed `header`, or add it with them.
    pub(super) fn set(&self, path: &[&str], header: &str, lines: Vec<String>) -> Remedy {
        // The last file decides.
        match self.files.iter().rev().find(|file| file.has_table(path)) {
            Some(file) => Remedy::new(
                format!("in {}, in the table [{header}], set, and restart containerd", file.path.display()),
                lines,
            ),
            None => {
                let head = std::iter::once(format!("[{header}]"));
                self.add(head.chain(lines.into_iter().map(|line| format!("  {line}"))).collect())
            }
        }
    }
}

/// Add `lines` to the file at `path`.
pub(super) fn add_to(path: &Path, lines: Vec<String>) -> Remedy {
    Remedy::new(format!("add to {}, and restart containerd", path.display()), lines)
}

// === impl File ===

impl File {
    fn parse(text: &str, path: PathBuf) -> Result<Self> {
        let table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
        Ok(Self { path, table })
    }

    fn has_table(&self, path: &[&str]) -> bool {
        path.iter().try_fold(&self.table, |table, key| table.get(*key)?.as_table()).is_some()
    }
}

/// Puts `from` on top of `to`, which is `depth` tables deep.
fn merge(to: &mut Table, from: &Table, depth: usize) {
    for (key, value) in from {
        match (to.get_mut(key), value) {
            // Proxy plugins are replaced, plugins are not.
            (Some(Value::Table(to)), Value::Table(from)) if depth == 0 && key == "proxy_plugins" => {
                to.extend(from.clone());
            }
            (Some(Value::Table(to)), Value::Table(from)) => merge(to, from, depth + 1),
            (Some(Value::Array(to)), Value::Array(from)) => to.extend(from.clone()),
            _ => {
                to.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_read_as_containerd_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let main = write(
            "config.toml",
            "version = 3\nimports = ['conf.d/*.toml', 'none/*.toml']\n[plugins.a]\nx = 1\ny = 1\nz = [1]\n\
             [proxy_plugins.p]\ntype = 'snapshot'\naddress = '/old'\n",
        );
        write("conf.d/1.toml", "version = 2\nimports = ['../config.toml']\n[plugins.a]\nx = 2\nz = [2]\n");
        write("conf.d/2.toml", "[proxy_plugins.p]\naddress = '/new'\n");
        write("conf.d/not.json", "{");
        let document = Document::load(&main).unwrap();
        assert_eq!((document.version(), document.imported().count()), (3, 2));
        let number = |path: &[&str]| document.get(path).and_then(Value::as_integer);
        assert_eq!((number(&["plugins", "a", "x"]), number(&["plugins", "a", "y"])), (Some(2), Some(1)));
        assert_eq!(document.get(&["plugins", "a", "z"]).and_then(Value::as_array).unwrap().len(), 2);
        let plugin = document.get(&["proxy_plugins", "p"]).unwrap().as_table().unwrap();
        assert_eq!((plugin.len(), plugin["address"].as_str()), (1, Some("/new")));
        let there = document.set(&["proxy_plugins", "p"], "proxy_plugins.p", vec!["a = 1".into()]);
        assert!(there.what.contains("conf.d/2.toml") && there.lines == ["a = 1"], "{there:?}");
        let not = document.set(&["proxy_plugins", "q"], "proxy_plugins.q", vec!["a = 1".into()]);
        assert!(not.what.contains("add to") && not.lines == ["[proxy_plugins.q]", "  a = 1"], "{not:?}");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        assert!(Document::load(&path).unwrap_err().to_string().contains("cannot read"));
        fs::write(&path, "version = ").unwrap();
        assert!(Document::load(&path).unwrap_err().to_string().contains("is not TOML"));
    }
}
