//! What became of the layers of each image, and why: for `starling status` and `starling explain`.
//!
//! Kept in memory and in one JSON file, which is written some time after a change; what is lost in a crash is a
//! few lines of explanation. A file that cannot be read is begun anew.

use std::{
    collections::VecDeque,
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;

use super::labels::Wanted;
use crate::admin::{ImageLayerStatus, ImageStatus, OutcomeStatus};

/// Images that are remembered; the one that was pulled longest ago is forgotten first.
const MOST_IMAGES: usize = 500;
/// A pull prepares its layers one after the other; one write is enough for most of them.
const WRITE_AFTER: Duration = Duration::from_secs(1);

/// The record of images.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The latest first.
    images: VecDeque<ImageStatus>,
    write_due: bool,
}

// === impl Journal ===

impl Journal {
    /// Continues the record in the file `path`.
    pub(super) fn open(path: PathBuf) -> Arc<Self> {
        let read = || -> io::Result<VecDeque<ImageStatus>> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
        let images = read().unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "cannot read what became of images, beginning anew");
            }
            VecDeque::new()
        });
        Arc::new(Self { path, inner: Mutex::new(Inner { images, write_due: false }) })
    }

    /// A layer was prepared.
    pub(super) fn add(self: &Arc<Self>, wanted: &Wanted, outcome: OutcomeStatus) {
        let write = {
            let mut inner = self.inner.lock();
            inner.add(wanted, outcome);
            !std::mem::replace(&mut inner.write_due, true)
        };
        let runtime = tokio::runtime::Handle::try_current();
        if let (true, Ok(runtime)) = (write, runtime) {
            let journal = Arc::clone(self);
            runtime.spawn(async move {
                tokio::time::sleep(WRITE_AFTER).await;
                // A runtime that is going down leaves it to flush.
                let _ = tokio::task::spawn_blocking(move || journal.flush()).await;
            });
        }
    }

    /// All images, the latest first.
    pub(super) fn images(&self) -> Vec<ImageStatus> {
        self.inner.lock().images.iter().cloned().collect()
    }

    /// Writes what was not written yet.
    pub(super) fn flush(&self) {
        let bytes = {
            let mut inner = self.inner.lock();
            if !std::mem::replace(&mut inner.write_due, false) {
                return;
            }
            serde_json::to_vec(&inner.images)
        };
        let new = self.path.with_extension("new");
        let written = bytes.map_err(io::Error::from).and_then(|bytes| {
            fs::write(&new, bytes)?;
            fs::rename(&new, &self.path)
        });
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "cannot write what became of images");
        }
    }
}

impl Inner {
    fn add(&mut self, wanted: &Wanted, outcome: OutcomeStatus) {
        let manifest = wanted.manifest.map(|digest| digest.to_string());
        let same = |image: &ImageStatus| image.reference == wanted.reference && image.manifest == manifest;
        let known = self.images.iter().position(same).and_then(|at| self.images.remove(at));
        let mut image = known.unwrap_or_else(|| ImageStatus {
            reference: wanted.reference.clone(),
            manifest: manifest.clone(),
            prepared_at: 0,
            layers: Vec::new(),
        });
        image.prepared_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let (blob, toc) = (wanted.blob.to_string(), wanted.toc.map(|toc| toc.to_string()));
        match image.layers.iter_mut().find(|layer| layer.blob == blob) {
            Some(layer) => (layer.toc, layer.outcome) = (toc, outcome),
            None => image.layers.push(ImageLayerStatus { blob, toc, outcome }),
        }
        self.images.push_front(image);
        self.images.truncate(MOST_IMAGES);
    }
}

#[cfg(test)]
mod tests {
    use estargz::Digest;

    use super::*;

    fn wanted(reference: &str, blob: u8) -> Wanted {
        let blob = Digest::of(&[blob]);
        let reference = reference.to_owned();
        Wanted { reference, blob, layers: Vec::new(), manifest: None, toc: None, prefetch: None }
    }

    fn lazy() -> OutcomeStatus {
        OutcomeStatus::Lazy { key: "k".to_owned() }
    }

    fn fell_back() -> OutcomeStatus {
        OutcomeStatus::FellBack { code: "not-estargz".to_owned(), reason: "no footer".to_owned() }
    }

    #[test]
    fn it_survives_and_the_latest_image_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("images.json");
        let journal = Journal::open(path.clone());
        journal.add(&wanted("a", 1), fell_back());
        journal.add(&wanted("b", 1), lazy());
        journal.add(&wanted("a", 2), lazy());
        journal.add(&wanted("a", 1), lazy());
        journal.flush();
        let images = Journal::open(path).images();
        assert_eq!(images, journal.images());
        assert_eq!(images.iter().map(|image| image.reference.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(images[0].layers.len(), 2);
        assert!(images[0].layers.iter().all(|layer| layer.outcome == lazy()));
    }

    #[test]
    fn a_damaged_file_is_begun_anew_and_images_are_limited() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("images.json");
        fs::write(&path, "{").unwrap();
        let journal = Journal::open(path);
        (0..MOST_IMAGES + 3).for_each(|n| journal.add(&wanted(&n.to_string(), 1), fell_back()));
        assert_eq!(journal.images().len(), MOST_IMAGES);
    }

    #[tokio::test]
    async fn it_is_written_without_being_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("images.json");
        Journal::open(path.clone()).add(&wanted("a", 1), lazy());
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
