//! A disk that does what it is told and notes it, for a [`Machine`] to go through the same.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use store::{Disk, RealDisk};

use crate::machine::{Change, Id, Machine, Naming, Place, Writing};

/// See the [module](self).
pub(crate) struct Recorder<M> {
    root: PathBuf,
    state: Mutex<State<M>>,
}

struct State<M> {
    /// As it is now.
    machine: Machine,
    /// Which file has an inode number: a number is given again once nobody has its file open.
    inodes: BTreeMap<u64, Id>,
    log: Vec<Entry<M>>,
    last: Id,
}

/// What happened, in its order.
#[derive(Debug, Clone)]
pub(crate) enum Entry<M> {
    Change(Change),
    /// What the test had to say.
    Mark(M),
}

// === impl Recorder ===

impl<M: Clone> Recorder<M> {
    /// Begins with what is on `machine`, of which it makes the directory `root`.
    pub(crate) fn start(machine: &Machine, root: &Path) -> Self {
        machine.make(root);
        let (inodes, log, last) = (BTreeMap::new(), Vec::new(), machine.last());
        let state = State { machine: machine.clone(), inodes, log, last };
        let recorder = Self { root: root.to_owned(), state: Mutex::new(state) };
        recorder.state.lock().adopt(Path::new(""), root);
        recorder
    }

    pub(crate) fn mark(&self, mark: M) {
        self.state.lock().log.push(Entry::Mark(mark));
    }

    /// What happened up to now. Nothing may have gone past the recorder.
    pub(crate) fn log(&self) -> Vec<Entry<M>> {
        let state = self.state.lock();
        state.machine.check(&self.root);
        state.log.clone()
    }

    fn place(&self, path: &Path, state: &State<M>) -> io::Result<(Id, String)> {
        let path = path.strip_prefix(&self.root).unwrap();
        let parent = state.machine.find(path.parent().unwrap_or(Path::new("")));
        let Some(Place::Dir(dir)) = parent else { return Err(io::ErrorKind::NotFound.into()) };
        Ok((dir, path.file_name().unwrap().to_str().unwrap().to_owned()))
    }

    fn to_file(&self, file: &File, writing: Writing) {
        let mut state = self.state.lock();
        let id = state.inodes[&file.metadata().unwrap().ino()];
        state.note(Change::Write(id, writing));
    }
}

impl<M> State<M> {
    fn note(&mut self, change: Change) {
        self.machine.apply(&change);
        self.log.push(Entry::Change(change));
    }

    fn fresh(&mut self) -> Id {
        self.last.0 += 1;
        self.last
    }

    /// Learns the inode numbers of what is in `real`.
    fn adopt(&mut self, path: &Path, real: &Path) {
        for entry in fs::read_dir(real).unwrap().flatten() {
            let path = path.join(entry.file_name());
            match self.machine.find(&path).unwrap() {
                Place::Dir(_) => self.adopt(&path, &entry.path()),
                Place::File(id) => drop(self.inodes.insert(entry.metadata().unwrap().ino(), id)),
            }
        }
    }
}

impl<M: Clone + Send + 'static> Disk for Recorder<M> {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        RealDisk.create_dir(path)?;
        let ((dir, name), id) = (self.place(path, &state)?, state.fresh());
        state.note(Change::Name(dir, Naming::Add(name, Place::Dir(id))));
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let mut state = self.state.lock();
        let (is_new, file) = (!path.exists(), RealDisk.open(path)?);
        if is_new {
            let ((dir, name), id) = (self.place(path, &state)?, state.fresh());
            state.inodes.insert(file.metadata()?.ino(), id);
            state.note(Change::Name(dir, Naming::Add(name, Place::File(id))));
        }
        Ok(file)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        RealDisk.set_len(file, len)?;
        self.to_file(file, Writing::SetLen(len as usize));
        Ok(())
    }

    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        RealDisk.write(file, bytes, offset)?;
        self.to_file(file, Writing::Write(offset as usize, bytes.to_vec()));
        Ok(())
    }

    fn punch(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        RealDisk.punch(file, offset, len)?;
        self.to_file(file, Writing::Punch(offset as usize, len as usize));
        Ok(())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.inodes[&file.metadata()?.ino()];
        state.note(Change::Sync(id));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        RealDisk.rename(from, to)?;
        let ((dir, from), (other, to)) = (self.place(from, &state)?, self.place(to, &state)?);
        assert_eq!(dir, other, "a rename into another directory is two changes, and no store makes one");
        state.note(Change::Name(dir, Naming::Rename(from, to)));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        // What is above is made once.
        let Ok(path) = dir.strip_prefix(&self.root) else { return Ok(()) };
        let Some(Place::Dir(id)) = state.machine.find(path) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        state.note(Change::SyncDir(id));
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let found = state.machine.find(dir.strip_prefix(&self.root).unwrap());
        let Some(Place::Dir(id)) = found else { return Err(io::ErrorKind::NotFound.into()) };
        RealDisk.remove_dir(dir)?;
        for name in state.machine.names(id).into_keys() {
            state.note(Change::Name(id, Naming::Take(name)));
        }
        let (parent, name) = self.place(dir, &state)?;
        state.note(Change::Name(parent, Naming::Take(name)));
        Ok(())
    }
}
