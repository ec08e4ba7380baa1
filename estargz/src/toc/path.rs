//! Names of TOC entries: cleaned and checked.

use std::borrow::Cow;

use super::Problem;
use crate::limits;

/// `name` as Go's `path.Clean("/" + name)` makes it, without the leading slash: no empty components, no `.`, no
/// `..`, nothing above the root. Empty for the root itself.
pub(super) fn clean(name: &str) -> Result<Cow<'_, str>, Problem> {
    check_text(name)?;
    let path = normalise(name);
    if path.len() > limits::PATH_LEN {
        return Err(Problem::OverLimit {
            what: "the length of its path",
            found: path.len() as u64,
            limit: limits::PATH_LEN as u64,
        });
    }
    match path.split('/').map(str::len).max() {
        Some(longest) if longest > limits::NAME_LEN => Err(Problem::OverLimit {
            what: "the length of a name in its path",
            found: longest as u64,
            limit: limits::NAME_LEN as u64,
        }),
        _ => Ok(path),
    }
}

/// Checks a symbolic link's target, which is kept as it is.
pub(super) fn check_target(target: &str) -> Result<(), Problem> {
    check_text(target)?;
    match target.len() {
        0 => Err(Problem::Nonsense("is a symbolic link to nothing")),
        1..=limits::PATH_LEN => Ok(()),
        found => Err(Problem::OverLimit {
            what: "the length of its target",
            found: found as u64,
            limit: limits::PATH_LEN as u64,
        }),
    }
}

/// The directory and the last component of a cleaned path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// JSON carries Unicode only: the writer puts U+FFFD where a name is not UTF-8, and what it stood for is lost.
pub(super) fn check_text(text: &str) -> Result<(), Problem> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Problem::NotUtf8);
    }
    if text.contains('\0') {
        return Err(Problem::Nonsense("has a name with a NUL byte"));
    }
    Ok(())
}

fn normalise(name: &str) -> Cow<'_, str> {
    // Directories are written with a slash behind.
    let trimmed = name.strip_suffix('/').unwrap_or(name);
    if !trimmed.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Cow::Borrowed(trimmed);
    }
    let mut path = String::with_capacity(name.len());
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => path.truncate(path.rfind('/').unwrap_or(0)),
            _ => {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(part);
            }
        }
    }
    Cow::Owned(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cleans_as_go_does() {
        for (name, expected) in [
            ("", ""),
            ("/", ""),
            (".", ""),
            ("./", ""),
            ("..", ""),
            ("a", "a"),
            ("a/", "a"),
            ("./a/b/", "a/b"),
            ("/a//b", "a/b"),
            ("a/./b", "a/b"),
            ("a/../b", "b"),
            ("a/..", ""),
            ("a/b/../../../c", "c"),
            ("../../etc/passwd", "etc/passwd"),
            (".../a..", ".../a.."),
            ("a\\b c", "a\\b c"),
        ] {
            assert_eq!(clean(name).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn refuses_names_that_linux_has_not() {
        assert_eq!(clean("a/\u{fffd}b"), Err(Problem::NotUtf8));
        assert!(matches!(clean("a\0b"), Err(Problem::Nonsense(_))));
        assert!(clean(&"n".repeat(255)).is_ok());
        assert!(matches!(clean(&"n".repeat(256)), Err(Problem::OverLimit { found: 256, limit: 255, .. })));
        assert!(clean(&"d/".repeat(2048)).is_ok());
        assert!(matches!(
            clean(&"d/".repeat(5000)),
            Err(Problem::OverLimit { found: 9999, limit: 4095, .. })
        ));
        assert!(clean(&"./".repeat(5000)).is_ok());
    }

    #[test]
    fn checks_targets() {
        assert!(check_target("../../x//./y").is_ok());
        assert!(check_target(&"t".repeat(4095)).is_ok());
        for target in ["", "a\0", "\u{fffd}", &"t".repeat(4096)] {
            assert!(check_target(target).is_err(), "{target}");
        }
    }

    proptest! {
        #[test]
        fn a_clean_path_stays_and_has_no_odd_parts(name in "[a./]{0,20}") {
            let path = clean(&name).unwrap().into_owned();
            prop_assert_eq!(clean(&path).unwrap(), path.as_str());
            prop_assert!(path.is_empty() || !path.split('/').any(|part| matches!(part, "" | "." | "..")));
        }
    }
}
