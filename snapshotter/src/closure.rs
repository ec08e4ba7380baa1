//! What an image's entry point needs to begin: the program, its interpreter, the libraries that they name.
//!
//! For images of which nothing is known: no landmark, no profile. Everything is outside data (a configuration, names,
//! ELF files) and only decides what is fetched early, so that whatever is odd ends the search at that point and no more.
//! All bytes are fetched as a plan: nobody waits for them.

mod cache;
mod elf;
mod entry;
mod libraries;
mod tree;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use store::{Layer, PlanId};

use self::{
    cache::Cache,
    elf::{Dynamic, Head},
    entry::Entry,
    libraries::Libraries,
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
/// Where glibc's loader finds libraries by name.
const CACHE: &str = "/etc/ld.so.cache";
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
        libraries: None,
    };
    for candidates in entry.candidates() {
        let _ = candidates.iter().any(|path| search.add(path));
    }
    while let Some(found) = search.queue.pop_front() {
        search.visit(found, &entry).await;
    }
    search.seen.len()
}

struct Search<'a> {
    tree: Tree<'a>,
    layers: &'a [Arc<Layer>],
    plan: PlanId,
    queue: VecDeque<Found>,
    seen: HashSet<Found>,
    /// As soon as the first program tells by its loader.
    libraries: Option<Libraries>,
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

    /// The beginning of the file at `path`, if there is one, of `most` bytes at most.
    async fn text(&self, path: &str, most: usize) -> Option<bytes::Bytes> {
        self.read(self.tree.file(path)?, 0, most).await
    }

    /// Reads a file as far as needed to take on what it names.
    async fn visit(&mut self, found: Found, entry: &Entry) {
        let Some(head) = self.read(found, 0, HEAD).await else { return };
        if let Some(script) = entry::interpreter(&head) {
            self.add(&script.program);
            let others: Vec<_> = script.argument.iter().flat_map(|name| entry.search(name)).collect();
            let _ = others.iter().any(|path| self.add(path));
            return;
        }
        let Some(elf) = Head::parse(&head) else { return };
        let mut loader = None;
        if let Some(range) = &elf.interpreter {
            let len = usize::try_from(range.end - range.start).unwrap_or(0).min(HEAD);
            let name = self.read(found, range.start, len).await;
            loader = name.as_deref().and_then(elf::text);
        }
        if let Some(loader) = &loader {
            self.add(loader);
        }
        let libraries = match self.libraries.take() {
            Some(libraries) => libraries,
            None => self.libraries_of(loader.as_deref(), entry).await,
        };
        self.needed(found, &elf, &libraries).await;
        self.libraries = Some(libraries);
    }

    /// Takes on the libraries that an ELF file names.
    async fn needed(&mut self, found: Found, elf: &Head, libraries: &Libraries) -> Option<()> {
        let range = elf.dynamic.clone().filter(|range| range.end - range.start <= MOST_DYNAMIC)?;
        let dynamic = self.read(found, range.start, (range.end - range.start) as usize).await?;
        let dynamic = Dynamic::parse(&dynamic, elf)?;
        let strings = dynamic.strings.clone().filter(|range| range.end - range.start <= MOST_STRINGS)?;
        let strings = self.read(found, strings.start, (strings.end - strings.start) as usize).await?;
        let own = dynamic.directories(&strings, &self.tree.directory_of(found));
        for name in dynamic.needed(&strings) {
            if name.contains('/') {
                self.add(&name);
            } else {
                let _ = libraries.places(&name, &own).iter().any(|path| self.add(path));
            }
        }
        Some(())
    }

    /// What the image tells its loader, which is glibc's unless its name says otherwise.
    async fn libraries_of(&self, loader: Option<&str>, entry: &Entry) -> Libraries {
        if let Some(list) = loader.and_then(libraries::musl_list) {
            let list = self.text(&list, MOST_LIST).await;
            return Libraries::musl(entry.libraries(), list.as_deref());
        }
        let cache = self.text(CACHE, cache::MOST_BYTES).await;
        match cache.as_deref().and_then(Cache::parse) {
            Some(cache) => Libraries::glibc(entry.libraries(), cache, Vec::new()),
            None => Libraries::glibc(entry.libraries(), Cache::default(), self.listed().await),
        }
    }

    /// The directories of `/etc/ld.so.conf` and the files that it includes, for an image without a cache.
    async fn listed(&self) -> Vec<String> {
        let mut directories = Vec::new();
        let mut files: Vec<String> = self.tree.names("/etc/ld.so.conf.d");
        files.retain(|name| name.ends_with(".conf"));
        files.sort();
        let files = files.into_iter().map(|name| format!("/etc/ld.so.conf.d/{name}"));
        for path in ["/etc/ld.so.conf".to_owned()].into_iter().chain(files.take(64)) {
            let Some(list) = self.text(&path, MOST_LIST).await else { continue };
            let lines = list.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
            directories.extend(lines.map(str::trim).filter(|line| line.starts_with('/')).map(str::to_owned));
        }
        directories
    }
}
