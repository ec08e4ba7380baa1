//! The files that a file of containerd's configuration imports.

use std::{
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result};
use toml::{Table, Value};

/// The files that the file at `path`, which says `table`, imports. Relative names begin at its directory.
pub(super) fn of(table: &Table, path: &Path) -> Result<Vec<PathBuf>> {
    let names = table.get("imports").and_then(Value::as_array).into_iter().flatten();
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut files = Vec::new();
    for path in names.filter_map(Value::as_str).map(|name| clean(&directory.join(name))) {
        files.extend(named(&path).with_context(|| format!("cannot list {}", path.display()))?);
    }
    Ok(files)
}

/// `path` without `..`, taken by the letter as Go does: a file that is imported in a circle has one name.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = clean.pop(),
            part => clean.push(part),
        }
    }
    clean
}

/// The files that `path` names, whose last part may have stars.
fn named(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(pattern)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Ok(Vec::new());
    };
    if !pattern.contains('*') {
        return Ok(vec![path.to_owned()]);
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    let fits = |name: &&OsString| name.to_str().is_some_and(|name| matches(pattern, name));
    let mut files: Vec<_> = names.iter().filter(fits).map(|name| directory.join(name)).collect();
    files.sort();
    Ok(files)
}

/// Whether `name` fits `pattern`, in which a star stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.filter_map(|at| name.get(at..)).any(|tail| matches(rest, tail))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, fits) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "a.toml.bak", false),
            ("1*b*.toml", "1xbé.toml", true),
            ("a", "b", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
