//! What an image's entry point needs to begin: the program, its interpreter, the libraries that they name.
//!
//! For images of which nothing is known: no landmark, no profile. Everything is outside data (a configuration, names,
//! ELF files) and only decides what is fetched early, so that whatever is odd ends the search at that point and no more.
//! All bytes are fetched as a plan: nobody waits for them.

mod elf;
mod entry;
mod tree;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use store::{Layer, PlanId};

use self::{
    elf::{Dynamic, Head},
    entry::Entry,
    tree::{Found, Tree},
};

/// Files of a closure: the largest programs name some hundred libraries.
const MOST_FILES: usize = 512;
/// Files up to this length are fetched whole; of longer ones only what is needed to read on, and as much.
const WHOLE: u64 = 8 << 20;
/// The beginning of a file: `#!` line, or ELF header and program headers.
const HEAD: usize = 4096;
/// The longest table of strings that is read for names of libraries.
const MOST_STRINGS: u64 = 4 << 20;
/// The longest dynamic section: some hundred entries of 16 bytes.
const MOST_DYNAMIC: u64 = 64 << 10;
/// The longest file with directories of libraries.
const MOST_LIST: usize = 64 << 10;
/// Where libraries are when nothing says where (ld.so(8), and Debian's and Alpine's own).
const LIBRARIES: [&str; 9] = [
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

/// Fetches what the entry point needs that the configuration `config` names; `layers` are the image's, the lowest first.
/// Gives the number of files.
pub(crate) async fn fetch(config: &[u8], layers: &[Arc<Layer>], plan: PlanId) -> usize {
    let Some(entry) = Entry::parse(config) else { return 0 };
    let mut search = Search {
        tree: Tree::new(layers),
        layers,
        plan,
        queue: VecDeque::new(),
        seen: HashSet::new(),
        directories: Vec::new(),
    };
    for path in entry.candidates() {
        if search.add(&path) {
            break;
        }
    }
    let mut begun = false;
    while let Some(found) = search.queue.pop_front() {
        search.visit(found, &entry, &mut begun).await;
    }
    search.seen.len()
}

struct Search<'a> {
    tree: Tree<'a>,
    layers: &'a [Arc<Layer>],
    plan: PlanId,
    queue: VecDeque<Found>,
    seen: HashSet<Found>,
    /// Of libraries.
    directories: Vec<String>,
}

impl Search<'_> {
    /// Takes on a file by its path. Says whether there is one.
    fn add(&mut self, path: &str) -> bool {
        let Some(found) = self.tree.file(path) else { return false };
        if self.seen.len() < MOST_FILES && self.seen.insert(found) {
            if let Some(layer) = self.layers.get(found.layer) {
                layer.plan_part(self.plan, found.node, 0..self.whole(found));
            }
            self.queue.push_back(found);
        }
        true
    }

    /// How much of a file is fetched in any case.
    fn whole(&self, found: Found) -> u64 {
        let size = self.layers.get(found.layer).and_then(|layer| layer.index().file(found.node).ok());
        size.map_or(0, |file| if file.size <= WHOLE { file.size } else { HEAD as u64 })
    }

    async fn read(&self, found: Found, offset: u64, len: usize) -> Option<bytes::Bytes> {
        self.layers.get(found.layer)?.read_planned(self.plan, found.node, offset, len).await.ok()
    }

    /// Reads a file as far as needed to take on what it names.
    async fn visit(&mut self, found: Found, entry: &Entry, begun: &mut bool) {
        let Some(head) = self.read(found, 0, HEAD).await else { return };
        if let Some(script) = entry::interpreter(&head) {
            self.add(&script.program);
            let others: Vec<_> = script.argument.iter().flat_map(|name| entry.search(name)).collect();
            let _ = others.iter().any(|path| self.add(path));
            return;
        }
        let Some(elf) = Head::parse(&head) else { return };
        if !std::mem::replace(begun, true) {
            self.directories = self.listed().await;
        }
        if let Some(range) = &elf.interpreter {
            let len = usize::try_from(range.end - range.start).unwrap_or(0).min(HEAD);
            let name = self.read(found, range.start, len).await;
            let name = name.as_deref().and_then(elf::text);
            if let Some(name) = name {
                self.add(&name);
            }
        }
        self.libraries(found, &elf).await;
    }

    /// Takes on the libraries that an ELF file names.
    async fn libraries(&mut self, found: Found, elf: &Head) -> Option<()> {
        let range = elf.dynamic.clone().filter(|range| range.end - range.start <= MOST_DYNAMIC)?;
        let dynamic = self.read(found, range.start, (range.end - range.start) as usize).await?;
        let dynamic = Dynamic::parse(&dynamic, elf)?;
        let strings = dynamic.strings.clone().filter(|range| range.end - range.start <= MOST_STRINGS)?;
        let strings = self.read(found, strings.start, (strings.end - strings.start) as usize).await?;
        let own = dynamic.directories(&strings, &self.tree.directory_of(found));
        for name in dynamic.needed(&strings) {
            if name.contains('/') {
                self.add(&name);
                continue;
            }
            let places = own.iter().chain(&self.directories).map(String::as_str).chain(LIBRARIES);
            let paths: Vec<_> = places.map(|directory| format!("{directory}/{name}")).collect();
            let _ = paths.iter().any(|path| self.add(path));
        }
        Some(())
    }

    /// The directories of `/etc/ld.so.conf` and the files that it includes.
    async fn listed(&mut self) -> Vec<String> {
        let mut directories = Vec::new();
        let mut files: Vec<String> = self.tree.names("/etc/ld.so.conf.d");
        files.retain(|name| name.ends_with(".conf"));
        files.sort();
        let files = files.into_iter().map(|name| format!("/etc/ld.so.conf.d/{name}"));
        for path in ["/etc/ld.so.conf".to_owned()].into_iter().chain(files.take(64)) {
            let Some(found) = self.tree.file(&path) else { continue };
            let Some(list) = self.read(found, 0, MOST_LIST).await else { continue };
            let lines = list.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
            directories.extend(lines.map(str::trim).filter(|line| line.starts_with('/')).map(str::to_owned));
        }
        directories.truncate(256);
        directories
    }
}
