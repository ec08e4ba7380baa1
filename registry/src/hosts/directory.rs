//! `certs.d`: a directory for each registry, with a `hosts.toml` or with certificate files as Docker names them.
//!
//! Looked up and read as containerd 2.4 does it.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    entry::{HostEntry, KeyPair},
    file::{self, InvalidHostsFile},
};
use crate::regular_file;

/// What is in a registry's directory.
#[derive(Debug)]
pub(super) struct Described {
    /// The hosts, the registry's own server last.
    pub(super) entries: Vec<HostEntry>,
    /// Why its `hosts.toml` counts for nothing, if it does; the certificate files count then.
    pub(super) problem: Option<Unusable>,
}

/// A directory that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub(super) struct Unreadable {
    path: PathBuf,
    source: io::Error,
}

/// A `hosts.toml` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}; the certificate files beside it are used instead, as containerd does it", path.display())]
pub(super) struct Unusable {
    path: PathBuf,
    #[source]
    reason: InvalidHostsFile,
}

/// What the directories in `roots` say of `host`; `None` if they say nothing. The first root that has a directory for
/// the host, or one for all (`_default`), decides.
pub(super) fn read(roots: &[PathBuf], host: &str) -> Result<Option<Described>, Unreadable> {
    for root in roots {
        for name in names(host) {
            let directory = root.join(name);
            match fs::metadata(&directory) {
                Ok(_) => return describe(&directory).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Unreadable { path: directory, source }),
            }
        }
    }
    Ok(None)
}

/// The names that a directory about `host` can have, the most special first. A colon is awkward in file names:
/// `example.com:5000` may be written `example.com_5000_`.
fn names(host: &str) -> Vec<String> {
    let tame = match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() => Some(format!("{name}_{port}_")),
        _ => None,
    };
    tame.into_iter().chain([host.to_owned(), "_default".to_owned()]).collect()
}

fn describe(directory: &Path) -> Result<Described, Unreadable> {
    let path = directory.join("hosts.toml");
    let text = match read_bounded(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(Unreadable { path, source }),
    };
    if text.is_empty() {
        return Ok(Described { entries: vec![certificates(directory)?], problem: None });
    }
    let parsed = match std::str::from_utf8(&text) {
        Ok(text) => file::parse(directory, text),
        Err(error) => Err(InvalidHostsFile::Syntax(error.to_string())),
    };
    match parsed {
        Ok(entries) => Ok(Described { entries, problem: None }),
        Err(reason) => {
            let entries = vec![certificates(directory)?];
            Ok(Described { entries, problem: Some(Unusable { path, reason }) })
        }
    }
}

/// A little more than the longest file that is read, so that a longer one is known for what it is.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    regular_file::read(path, file::MAX_LEN as u64 + 1)
}

/// `*.crt` are authorities; `*.cert` are certificates of ours, with the key in the `.key` of the same name or in the
/// same file.
fn certificates(directory: &Path) -> Result<HostEntry, Unreadable> {
    let unreadable = |source| Unreadable { path: directory.to_owned(), source };
    let mut entry = HostEntry::default();
    let mut files = Vec::new();
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(entry),
        Err(source) => return Err(unreadable(source)),
    };
    for file in listing {
        let file = file.map_err(unreadable)?;
        if !file.file_type().map_err(unreadable)?.is_dir() {
            files.push(file.path());
        }
    }
    files.sort();
    for path in files {
        match path.extension().and_then(OsStr::to_str) {
            Some("crt") => entry.ca.get_or_insert_default().push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                let key = key.exists().then_some(key);
                entry.clients.push(KeyPair { certificate: path, key });
            }
            _ => {}
        }
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(names: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let directory = tempfile::tempdir().unwrap();
        let roots = names.iter().map(|name| directory.path().join(name)).collect();
        (directory, roots)
    }

    fn put(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The host that the directory found for `host` names.
    fn server(roots: &[PathBuf], host: &str) -> Option<String> {
        let described = read(roots, host).unwrap()?;
        Some(described.entries.last()?.location.clone()?.authority)
    }

    #[test]
    fn the_first_directory_that_fits_decides() {
        let (_directory, roots) = roots(&["one", "two"]);
        assert_eq!(server(&roots, "example.com:5000"), None);
        let says = |root: usize, name: &str, server: &str| {
            put(&roots[root].join(name).join("hosts.toml"), &format!("server = {server:?}"));
        };
        says(1, "_default", "two-default");
        assert_eq!(server(&roots, "example.com:5000").unwrap(), "two-default");
        says(1, "example.com:5000", "two-colon");
        assert_eq!(server(&roots, "example.com:5000").unwrap(), "two-colon");
        says(1, "example.com_5000_", "two-tame");
        assert_eq!(server(&roots, "example.com:5000").unwrap(), "two-tame");
        says(0, "_default", "one-default");
        assert_eq!(server(&roots, "example.com:5000").unwrap(), "one-default");
        says(0, "example.com", "without-port");
        assert_eq!(server(&roots, "example.com:5000").unwrap(), "one-default");
        assert_eq!(server(&roots, "example.com").unwrap(), "without-port");
    }

    #[test]
    fn certificate_files_count_without_a_hosts_file_and_with_one_that_is_empty_or_broken() {
        for text in [None, Some(""), Some("server = 3"), Some("["), Some("capabilities = [\"fly\"]")] {
            let (_directory, roots) = roots(&["root"]);
            let directory = roots[0].join("example.com");
            for name in ["b.crt", "a.crt", "pair.cert", "pair.key", "both.cert", "other.key", "x.pem"] {
                put(&directory.join(name), "");
            }
            fs::create_dir(directory.join("folder.crt")).unwrap();
            if let Some(text) = text {
                put(&directory.join("hosts.toml"), text);
            }
            let described = read(&roots, "example.com").unwrap().unwrap();
            assert_eq!(described.problem.is_some(), text.is_some_and(|text| !text.is_empty()), "{text:?}");
            let [entry] = described.entries.as_slice() else { panic!("{:?}", described.entries) };
            assert_eq!(entry.location, None);
            assert_eq!(entry.ca, Some(vec![directory.join("a.crt"), directory.join("b.crt")]));
            let pair = |name: &str, key: Option<&str>| KeyPair {
                certificate: directory.join(name),
                key: key.map(|key| directory.join(key)),
            };
            assert_eq!(entry.clients, [pair("both.cert", None), pair("pair.cert", Some("pair.key"))]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_not_nothing() {
        let (_directory, roots) = roots(&["root"]);
        fs::create_dir_all(roots[0].join("example.com/hosts.toml")).unwrap();
        let error = read(&roots, "example.com").unwrap_err().to_string();
        assert!(error.contains("hosts.toml"), "{error}");
        put(&roots[0].join("file"), "");
        assert!(read(&[roots[0].join("file")], "example.com").is_err());
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        let (_directory, roots) = roots(&["root"]);
        put(&roots[0].join("example.com/hosts.toml"), &"#".repeat(file::MAX_LEN + 10));
        let described = read(&roots, "example.com").unwrap().unwrap();
        assert!(described.problem.unwrap().to_string().contains("longer than"));
    }
}
