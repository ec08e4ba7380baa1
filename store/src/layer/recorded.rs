//! What a layer has to do with its profiles: the one of all images, and those of the images that start.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
};

use estargz::ChunkId;
use parking_lot::{Mutex, RwLock};

use super::Layer;
use crate::{
    Access, LayerKey, PlanId, Profile,
    engine::Engine,
    files::LayerFiles,
    profile::{Book, Recorder, Shelf, Starts, Unsaved},
};

/// Images whose starts one layer tells apart in one life of the daemon: each takes a bit for every chunk.
const MOST_IMAGES: usize = 64;

/// What is done about a layer's profiles from now on.
#[derive(Debug)]
pub(super) struct Recording {
    /// Of whatever is read.
    any: Recorder,
    images: RwLock<Vec<Arc<Start>>>,
    /// Whether there is a profile of all images on the shelf.
    profiled: AtomicBool,
    /// Whether the page cache may hold something of the layer.
    read: AtomicBool,
    /// The image whose plan was begun last.
    followed: Mutex<Option<PlanId>>,
}

/// The start of an image.
#[derive(Debug)]
struct Start {
    image: PlanId,
    recorder: Recorder,
    /// The page cache held nothing of the layer.
    whole: bool,
    saved: AtomicBool,
}

// === impl Recording ===

impl Recording {
    /// A layer of which nothing is here will be read by a cold start, and a recording that a restart cut off goes on.
    /// After a restart that found a whole recording, reads are those of programs that run: they tell nothing about
    /// starts.
    pub(super) fn begin(key: LayerKey, files: &LayerFiles, engine: &Engine) -> Self {
        let profile = engine.shelf.get(Book::of_any(key));
        let any = recorder(profile.as_ref(), files, engine);
        let read = files.chunks.present() > 0;
        let (images, followed) = Default::default();
        Self { any, images, profiled: profile.is_some().into(), read: read.into(), followed }
    }

    /// Whether reads are of any interest.
    pub(super) fn is_on(&self) -> bool {
        self.any.is_on() || self.images.read().iter().any(|start| start.recorder.is_on())
    }

    /// `chunks` are read.
    pub(super) fn note(&self, starts: &Starts, chunks: impl Iterator<Item = ChunkId> + Clone) {
        self.read.store(true, Release);
        for start in self.images.read().iter() {
            if start.recorder.is_on() {
                start.recorder.note(starts, chunks.clone());
            }
        }
        if self.any.is_on() {
            self.any.note(starts, chunks);
        }
    }
}

fn recorder(profile: Option<&Profile>, files: &LayerFiles, engine: &Engine) -> Recorder {
    let (count, window) = (files.index.chunk_count(), engine.config.record);
    let goes_on = files.chunks.present() > 0;
    match profile {
        _ if window.is_zero() => Recorder::off(),
        Some(profile) if goes_on && profile.is_finished() => Recorder::off(),
        Some(profile) if goes_on => {
            Recorder::new(count, window, profile.accesses().last().map_or(0, |access| access.at))
        }
        _ => Recorder::new(count, window, 0),
    }
}

// === impl Layer ===

impl Layer {
    /// A container of `image` starts: what it reads of the layer is noted for this image. Says whether one of this image
    /// started before, so that what it reads is likely to be here.
    pub fn begin_start(&self, image: PlanId) -> bool {
        if self.engine.config.record.is_zero() {
            return false;
        }
        let known = |images: &[Arc<Start>]| images.iter().any(|start| start.image == image);
        if known(&self.recording.images.read()) {
            return true;
        }
        let whole = !self.recording.read.load(Acquire);
        let profile = self.engine.shelf.get(Book::of(self.key, image));
        let recorder = recorder(profile.as_ref(), &self.files, &self.engine);
        if !recorder.is_on() {
            return true;
        }
        let mut images = self.recording.images.write();
        if !known(&images) && images.len() < MOST_IMAGES {
            images.push(Arc::new(Start { image, recorder, whole, saved: AtomicBool::new(false) }));
        }
        false
    }

    /// Whether anything is known about the order in which the layer is read.
    pub fn has_profile(&self) -> bool {
        self.recording.profiled.load(Acquire)
    }

    /// What is known about the order in which the layer is read, by whatever image.
    pub fn profile(&self) -> Option<Profile> {
        self.save_profile();
        self.engine.shelf.get(Book::of_any(self.key))
    }

    /// What is known about the order in which `image` reads the layer: what it was seen to read. If something else had
    /// read the layer before, so that the page cache hid reads, or if the image was never seen to start, also what others
    /// read.
    pub fn profile_of(&self, image: PlanId) -> Option<Profile> {
        self.save_profile();
        known_of(&self.engine.shelf, self.key, image)
    }

    /// Compressed bytes of the chunks that were seen to be read while starts were recorded: what had to be fetched.
    pub fn recorded_bytes(&self) -> u64 {
        let chunk = |id| self.files.index.chunk(id).ok();
        let members: BTreeMap<u64, u64> = self
            .recording
            .any
            .noted()
            .into_iter()
            .filter_map(chunk)
            .map(|chunk| (chunk.member_start, chunk.member_end.saturating_sub(chunk.member_start)))
            .collect();
        members.values().sum()
    }

    /// Adds what others recorded of all that `image` reads. Says whether anything is new.
    pub fn learn(&self, image: PlanId, accesses: &[Access]) -> bool {
        let count = self.files.index.chunk_count();
        let ours: Vec<_> = accesses.iter().filter(|access| access.chunk.0 < count).copied().collect();
        let mut news = false;
        self.engine.shelf.change(Book::of(self.key, image), |profile| {
            news = profile.add(&ours) | profile.make_whole();
            news
        });
        self.add_for_any(&ours, false);
        if news {
            *self.recording.followed.lock() = None;
        }
        news
    }

    /// Whether the plan of `image` is another one than that which was begun last.
    pub(crate) fn is_new_plan(&self, image: PlanId) -> bool {
        self.recording.followed.lock().replace(image) != Some(image)
    }

    /// Adds what was recorded to the profiles.
    pub(crate) fn save_profile(&self) {
        let starts = self.recording.images.read().clone();
        for start in starts {
            let unsaved = match start.recorder.unsaved() {
                Some(unsaved) => unsaved,
                // That it reads nothing of the layer is worth knowing too.
                None if start.whole && !start.saved.load(Acquire) => Unsaved::default(),
                None => continue,
            };
            start.saved.store(true, Release);
            self.engine.shelf.change(Book::of(self.key, start.image), |profile| {
                let news = profile.add(&unsaved.accesses) | (start.whole && profile.make_whole());
                let ends = unsaved.finished && !profile.is_finished();
                if ends {
                    profile.finish();
                }
                news || ends
            });
            self.add_for_any(&unsaved.accesses, false);
        }
        if let Some(unsaved) = self.recording.any.unsaved() {
            self.add_for_any(&unsaved.accesses, unsaved.finished);
        }
    }

    /// Adds to what is known of all images.
    fn add_for_any(&self, accesses: &[Access], finished: bool) {
        if accesses.is_empty() && !finished {
            return;
        }
        self.engine.shelf.change(Book::of_any(self.key), |profile| {
            let news = profile.add(accesses);
            let ends = finished && !profile.is_finished();
            if ends {
                profile.finish();
            }
            news || ends
        });
        self.recording.profiled.fetch_or(!accesses.is_empty(), AcqRel);
    }
}

/// See [`Layer::profile_of`].
pub(crate) fn known_of(shelf: &Shelf, key: LayerKey, image: PlanId) -> Option<Profile> {
    let any = || shelf.get(Book::of_any(key));
    match shelf.get(Book::of(key, image)) {
        Some(own) if own.is_whole() => Some(own),
        Some(mut own) => {
            own.add(any().as_ref().map_or(&[], Profile::accesses));
            Some(own)
        }
        None => any(),
    }
}
