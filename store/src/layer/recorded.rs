//! What a layer has to do with its profile.

use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

use super::Layer;
use crate::{Access, LayerKey, Profile, engine::Engine, files::LayerFiles, profile::Recorder};

/// What is done about a layer's profile from now on.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) recorder: Recorder,
    /// Whether there is a profile on the shelf.
    profiled: AtomicBool,
}

// === impl Recording ===

impl Recording {
    /// A layer of which nothing is here will be read by a cold start, and a recording that a restart cut off goes on.
    /// After a restart that found a whole recording, reads are those of programs that run: they tell nothing about
    /// starts.
    pub(super) fn begin(key: LayerKey, files: &LayerFiles, engine: &Engine) -> Self {
        let profile = engine.shelf.get(key);
        let (count, window) = (files.index.chunk_count(), engine.config.record);
        let recorder = match &profile {
            _ if window.is_zero() => Recorder::off(),
            Some(profile) if files.chunks.present() > 0 && profile.is_finished() => Recorder::off(),
            Some(profile) if files.chunks.present() > 0 => {
                Recorder::new(count, window, profile.accesses().last().map_or(0, |access| access.at))
            }
            _ => Recorder::new(count, window, 0),
        };
        Self { recorder, profiled: profile.is_some().into() }
    }
}

// === impl Layer ===

impl Layer {
    /// Whether anything is known about the order in which the layer is read.
    pub fn has_profile(&self) -> bool {
        self.recording.profiled.load(Acquire)
    }

    /// What is known about the order in which the layer is read.
    pub fn profile(&self) -> Option<Profile> {
        self.save_profile();
        self.engine.shelf.get(self.key)
    }

    /// Adds what others recorded to the profile. Says whether anything is new.
    pub fn learn(&self, accesses: &[Access]) -> bool {
        let count = self.files.index.chunk_count();
        let ours: Vec<_> = accesses.iter().filter(|access| access.chunk.0 < count).copied().collect();
        let mut news = false;
        self.engine.shelf.change(self.key, |profile| {
            news = profile.add(&ours);
            news
        });
        self.recording.profiled.fetch_or(news, Release);
        news
    }

    /// Adds what was recorded to the profile.
    pub(crate) fn save_profile(&self) {
        let Some(unsaved) = self.recording.recorder.unsaved() else { return };
        self.engine.shelf.change(self.key, |profile| {
            let news = profile.add(&unsaved.accesses);
            let ends = unsaved.finished && !profile.is_finished();
            if ends {
                profile.finish();
            }
            news || ends
        });
        self.recording.profiled.store(true, Release);
    }
}
