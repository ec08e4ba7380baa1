//! What a machine has on disk, what it only believes to have, and what is left of that after a power cut.
//!
//! Names last once their directory was synced; of those that were made, changed or taken away since, any part may be lost,
//! each alone. Of a file's changes since its last sync each sector of 512 bytes has seen some, from the first on, and so
//! has the file's length: a cut may fall between any two sectors, though the kernel writes pages. Real file systems lose
//! less.

use std::{collections::BTreeMap, fs, path::Path};

use rand::{Rng, rngs::StdRng};

const SECTOR: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) u64);

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Dir(Id),
    File(Id),
}

/// A change to a directory.
#[derive(Debug, Clone)]
pub(crate) enum Naming {
    Add(String, Place),
    Rename(String, String),
    Take(String),
}

/// A change to a file.
#[derive(Debug, Clone)]
pub(crate) enum Writing {
    SetLen(usize),
    Write(usize, Vec<u8>),
    Punch(usize, usize),
}

/// One thing that was done.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Name(Id, Naming),
    SyncDir(Id),
    Write(Id, Writing),
    Sync(Id),
}

/// How much of what was not synced is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    NamesOnly,
    BytesOnly,
    Everything,
    Some,
}

/// Directories and files, below [`Machine::ROOT`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    dirs: BTreeMap<Id, Lasting<BTreeMap<String, Place>, Naming>>,
    files: BTreeMap<Id, Lasting<Vec<u8>, Writing>>,
}

/// What is on disk for good, and what came since.
#[derive(Debug, Clone)]
struct Lasting<T, C> {
    synced: T,
    since: Vec<C>,
}

// === impl Lasting ===

impl<T: Default, C> Default for Lasting<T, C> {
    fn default() -> Self {
        Self { synced: T::default(), since: Vec::new() }
    }
}

// === impl Machine ===

impl Machine {
    pub(crate) const ROOT: Id = Id(0);

    /// One with an empty root.
    pub(crate) fn new() -> Self {
        Self { dirs: BTreeMap::from([(Self::ROOT, Lasting::default())]), files: BTreeMap::new() }
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Name(dir, naming) => {
                match naming {
                    Naming::Add(_, Place::Dir(id)) => drop(self.dirs.insert(*id, Lasting::default())),
                    Naming::Add(_, Place::File(id)) => drop(self.files.insert(*id, Lasting::default())),
                    _ => {}
                }
                self.dirs.get_mut(dir).unwrap().since.push(naming.clone());
            }
            Change::SyncDir(dir) => {
                let dir = self.dirs.get_mut(dir).unwrap();
                let since = std::mem::take(&mut dir.since);
                since.iter().for_each(|naming| naming.apply(&mut dir.synced));
            }
            Change::Write(file, writing) => self.files.get_mut(file).unwrap().since.push(writing.clone()),
            Change::Sync(file) => {
                let file = self.files.get_mut(file).unwrap();
                let since = std::mem::take(&mut file.since);
                since.iter().for_each(|writing| writing.apply(&mut file.synced));
            }
        }
    }

    /// What a path below the root stands for, to those who run on the machine.
    pub(crate) fn find(&self, path: &Path) -> Option<Place> {
        path.iter().try_fold(Place::Dir(Self::ROOT), |node, name| match node {
            Place::Dir(dir) => self.names(dir).get(name.to_str()?).copied(),
            Place::File(_) => None,
        })
    }

    /// The names of a directory, to those who run on the machine.
    pub(crate) fn names(&self, dir: Id) -> BTreeMap<String, Place> {
        let dir = &self.dirs[&dir];
        let mut names = dir.synced.clone();
        dir.since.iter().for_each(|naming| naming.apply(&mut names));
        names
    }

    /// The highest of its numbers.
    pub(crate) fn last(&self) -> Id {
        self.dirs.keys().chain(self.files.keys()).copied().max().unwrap_or(Self::ROOT)
    }

    /// The power goes, and comes back.
    pub(crate) fn cut(&self, left: Left, chance: &mut StdRng) -> Self {
        let mut after = Self::default();
        self.save(Self::ROOT, left, chance, &mut after);
        after
    }

    fn save(&self, id: Id, left: Left, chance: &mut StdRng, after: &mut Self) {
        let dir = &self.dirs[&id];
        let mut names = dir.synced.clone();
        for naming in &dir.since {
            if left.has_name(chance) {
                naming.apply(&mut names);
            }
        }
        for node in names.values() {
            match *node {
                Place::Dir(dir) => self.save(dir, left, chance, after),
                Place::File(file) => {
                    let synced = self.files[&file].cut(left, chance);
                    after.files.insert(file, Lasting { synced, since: Vec::new() });
                }
            }
        }
        after.dirs.insert(id, Lasting { synced: names, since: Vec::new() });
    }

    /// Makes real directories and files of it in `root`.
    pub(crate) fn make(&self, root: &Path) {
        self.visit(Self::ROOT, root, &mut |path, file| match file {
            None => fs::create_dir_all(path).unwrap(),
            Some(bytes) => fs::write(path, bytes).unwrap(),
        });
    }

    /// Whether `root` holds what this machine believes it does, and nothing else.
    pub(crate) fn check(&self, root: &Path) {
        let mut count = 0;
        self.visit(Self::ROOT, root, &mut |path, file| {
            count += 1;
            if let Some(bytes) = file {
                assert!(fs::read(path).unwrap() == bytes, "{} was changed past the disk", path.display());
            }
        });
        assert_eq!(count, entries(root), "names were changed past the disk");
    }

    fn visit(&self, dir: Id, path: &Path, look: &mut impl FnMut(&Path, Option<Vec<u8>>)) {
        look(path, None);
        for (name, node) in self.names(dir) {
            match node {
                Place::Dir(dir) => self.visit(dir, &path.join(name), look),
                Place::File(file) => {
                    let file = &self.files[&file];
                    let mut bytes = file.synced.clone();
                    file.since.iter().for_each(|writing| writing.apply(&mut bytes));
                    look(&path.join(name), Some(bytes));
                }
            }
        }
    }
}

fn entries(path: &Path) -> usize {
    let below = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    1 + below.map(|path| if path.is_dir() { entries(&path) } else { 1 }).sum::<usize>()
}

impl Lasting<Vec<u8>, Writing> {
    fn cut(&self, left: Left, chance: &mut StdRng) -> Vec<u8> {
        let mut versions = vec![self.synced.clone()];
        for writing in &self.since {
            let mut next = versions.last().unwrap().clone();
            writing.apply(&mut next);
            versions.push(next);
        }
        let mut pick = || match left {
            Left::Nothing | Left::NamesOnly => 0,
            Left::Everything | Left::BytesOnly => versions.len() - 1,
            Left::Some => chance.random_range(0..versions.len()),
        };
        let mut bytes = vec![0; versions[pick()].len()];
        for (at, sector) in bytes.chunks_mut(SECTOR).enumerate() {
            let version = versions[pick()].get(at * SECTOR..).unwrap_or_default();
            let len = sector.len().min(version.len());
            sector[..len].copy_from_slice(&version[..len]);
        }
        bytes
    }
}

// === impl Left ===

impl Left {
    pub(crate) const ALL: [Self; 5] =
        [Self::Nothing, Self::NamesOnly, Self::BytesOnly, Self::Everything, Self::Some];

    fn has_name(self, chance: &mut StdRng) -> bool {
        match self {
            Self::Nothing | Self::BytesOnly => false,
            Self::NamesOnly | Self::Everything => true,
            Self::Some => chance.random(),
        }
    }
}

// === impl Naming ===

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, Place>) {
        match self {
            Self::Add(name, node) => drop(names.insert(name.clone(), *node)),
            // Of a name whose making was lost nothing comes.
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            Self::Take(name) => drop(names.remove(name)),
        }
    }
}

// === impl Writing ===

impl Writing {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => file.resize(*len, 0),
            Self::Write(at, bytes) => {
                file.resize(file.len().max(at + bytes.len()), 0);
                file[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Punch(at, len) => {
                let end = file.len().min(at + len);
                file[*at.min(&end)..end].fill(0);
            }
        }
    }
}
