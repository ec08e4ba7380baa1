//! Where the loader of an image looks for libraries by their name: glibc's (ld.so(8)) or musl's.

use super::cache::Cache;

/// Where glibc looks when nothing says where (ld.so(8), and Debian's own).
const GLIBC: [&str; 9] = [
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];
/// Where musl looks when nothing says where.
const MUSL: [&str; 3] = ["/lib", "/usr/local/lib", "/usr/lib"];
/// Directories that one list names.
const MOST_DIRECTORIES: usize = 256;

/// The loader of an image, and what the image tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Libraries {
    /// Of `LD_LIBRARY_PATH`.
    first: Vec<String>,
    cache: Cache,
    /// Directories of the image's own, then the loader's.
    directories: Vec<String>,
}

// === impl Libraries ===

impl Libraries {
    /// glibc's loader; `listed` are the directories of `/etc/ld.so.conf`, which made the cache.
    pub(super) fn glibc(first: Vec<String>, cache: Cache, listed: Vec<String>) -> Self {
        let listed = listed.into_iter().take(MOST_DIRECTORIES);
        let directories = listed.chain(GLIBC.map(str::to_owned)).collect();
        Self { first, cache, directories }
    }

    /// musl's loader; `list` is its file of directories, if there is one.
    pub(super) fn musl(first: Vec<String>, list: Option<&[u8]>) -> Self {
        let list = list.and_then(|list| std::str::from_utf8(list).ok());
        let directories = match list {
            Some(list) => directories(list),
            None => MUSL.map(str::to_owned).to_vec(),
        };
        Self { first, cache: Cache::default(), directories }
    }

    /// The places where a library with this name may be, the likeliest first; `own` are the directories that the file
    /// names which needs it.
    pub(super) fn places(&self, name: &str, own: &[String]) -> Vec<String> {
        let inside = |directory: &String| format!("{directory}/{name}");
        let first = self.first.iter().chain(own).map(inside);
        let cached = self.cache.places(name).iter().cloned();
        first.chain(cached).chain(self.directories.iter().map(inside)).collect()
    }
}

/// The directories of a list as `LD_LIBRARY_PATH` or a file of musl's has it.
pub(super) fn directories(list: &str) -> Vec<String> {
    let parts = list.split([':', ';', '\n']).map(str::trim).filter(|part| part.starts_with('/'));
    parts.take(MOST_DIRECTORIES).map(str::to_owned).collect()
}

/// The file with musl's directories, if `loader` is musl's (`/lib/ld-musl-x86_64.so.1`).
pub(super) fn musl_list(loader: &str) -> Option<String> {
    let machine = loader.rsplit('/').next()?.strip_prefix("ld-musl-")?.split('.').next()?;
    (!machine.is_empty()).then(|| format!("/etc/ld-musl-{machine}.path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_own_directories_go_before_the_images() {
        let glibc = Libraries::glibc(vec!["/first".into()], Cache::default(), vec!["/listed".into()]);
        let places = glibc.places("a.so", &["/own".into()]);
        assert_eq!(places[..4], ["/first/a.so", "/own/a.so", "/listed/a.so", "/lib64/a.so"]);
        let musl = Libraries::musl(Vec::new(), None);
        assert_eq!(musl.places("a.so", &[]), ["/lib/a.so", "/usr/local/lib/a.so", "/usr/lib/a.so"]);
        let listed = Libraries::musl(Vec::new(), Some(b"/x:/y\n/z\nrelative"));
        assert_eq!(listed.places("a.so", &[]), ["/x/a.so", "/y/a.so", "/z/a.so"]);
    }

    #[test]
    fn musls_loader_is_known_by_its_name() {
        let list = |loader: &str| musl_list(loader);
        assert_eq!(list("/lib/ld-musl-x86_64.so.1").as_deref(), Some("/etc/ld-musl-x86_64.path"));
        assert_eq!(list("/lib64/ld-linux-x86-64.so.2"), None);
        assert_eq!(list("ld-musl-"), None);
    }
}
