//! Profiles of images: given out, and looked for where the image is.
//!
//! An image some of whose layers nothing is known of may have a profile in its registry. It is asked for once for each
//! pull, in the background: no Prepare waits for it, and no failure is worth more than a line in the log. Meanwhile an
//! image of which nothing is known at all is looked at for what its entry point needs.
//!
//! The layers that an image shares with others may be here already, so that no Prepare comes for them; what is missing
//! of them belongs to the image's plan all the same.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use estargz::Digest;
use parking_lot::Mutex;
use registry::Reference;
use store::{Layer, LayerKey, PlanId};

use super::{
    RemoteLayers,
    images::{self, Images, blocking},
    labels::{Wanted, plan_of},
    manifest::Manifest,
    opener::{Opener, Target},
};
use crate::{
    closure,
    profile::{self, Document, PullError},
};

/// The layers of one pull all ask; their image is looked up once in this time.
const ONCE_IN: Duration = Duration::from_secs(60);

/// Looks for profiles in registries.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    asked: Mutex<HashMap<Digest, Instant>>,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

/// What became of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Found,
    None,
    Refused,
    Failed,
}

/// An image whose profile is looked for.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) reference: Reference,
    pub(super) wanted: Wanted,
    pub(super) digest: Digest,
    pub(super) manifest: images::Flight,
    pub(super) images: Arc<Images>,
    /// Whether its registry is asked for a profile.
    pub(super) ask: bool,
}

// === impl Lookups ===

impl Lookups {
    /// How often each outcome came.
    pub(super) fn counts(&self) -> [(&'static str, u64); Outcome::ALL.len()] {
        let mut counts = Outcome::ALL.map(|outcome| (outcome.name(), 0));
        for ((_, count), outcome) in counts.iter_mut().zip(&self.outcomes) {
            *count = outcome.load(Relaxed);
        }
        counts
    }

    /// Whether the image is to be looked up now.
    fn is_due(&self, image: Digest) -> bool {
        let (mut asked, now) = (self.asked.lock(), Instant::now());
        asked.retain(|_, at| now.duration_since(*at) < ONCE_IN);
        asked.insert(image, now).is_none()
    }

    /// Looks for a profile of the image, unless all its layers have one, and follows it. An image of which nothing at
    /// all is known gets what its entry point needs.
    pub(super) async fn run(self: Arc<Self>, opener: Arc<Opener>, subject: Subject) {
        let Ok(manifest) = subject.manifest.clone().await else { return };
        let all = targets(&manifest, &subject);
        for layer in all.iter().filter_map(|target| opener.store.layer(&target.key)) {
            layer.start_plan(subject.wanted.plan());
        }
        if !self.is_due(subject.digest) {
            return;
        }
        let (store, plan, keys) = (Arc::clone(&opener.store), subject.wanted.plan(), all.clone());
        let (nothing, unknown) = blocking(move || {
            let nothing = !keys.iter().any(|target| store.has_profile(&target.key));
            let unknown: Vec<_> =
                keys.into_iter().filter(|target| !store.has_profile_of(&target.key, plan)).collect();
            (nothing, unknown)
        })
        .await;
        if !nothing {
            all.iter().for_each(|target| follow_own(&opener, target.clone(), plan));
        }
        if nothing {
            tokio::spawn(begin(Arc::clone(&opener), Arc::clone(&manifest), subject.clone()));
        }
        if !unknown.is_empty() && subject.ask {
            self.ask(&opener, &manifest, &subject, unknown).await;
        }
    }

    async fn ask(&self, opener: &Arc<Opener>, manifest: &Manifest, subject: &Subject, unknown: Vec<Target>) {
        let layers: Vec<_> = manifest.layers.iter().map(|layer| (layer.blob, layer.toc)).collect();
        let found = profile::pull(&opener.registry, &subject.reference, subject.digest, &layers).await;
        let (outcome, document) = match found {
            Ok(Some(document)) => (Outcome::Found, Some(document)),
            Ok(None) => (Outcome::None, None),
            Err(error) => {
                tracing::info!(image = %subject.reference, error = crate::logging::chain(&error), "cannot use a profile");
                let refused = matches!(error, PullError::Refused { .. });
                (if refused { Outcome::Refused } else { Outcome::Failed }, None)
            }
        };
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.fetch_add(1, Relaxed);
        }
        if let Some(document) = document {
            follow(opener, Arc::new(document), unknown, subject.wanted.plan());
        }
    }
}

/// Fetches what the entry point of an image needs, unless its author has marked what is needed.
async fn begin(opener: Arc<Opener>, manifest: Arc<Manifest>, subject: Subject) {
    let opening: Vec<_> =
        targets(&manifest, &subject).into_iter().map(|target| opener.open_ahead(target)).collect();
    let mut layers = Vec::new();
    for opening in opening {
        // A layer that is not lazy hides nothing that matters here.
        layers.extend(opening.await);
    }
    if layers.is_empty() || layers.iter().any(|layer| layer.index().prefetch_end().is_some_and(|end| end > 0))
    {
        return;
    }
    let Some(config) = manifest.config else { return };
    let Some(config) = subject.images.config(subject.digest, config).await else { return };
    let files = closure::fetch(&config, &layers, subject.wanted.plan()).await;
    tracing::debug!(image = %subject.reference, files, "fetched what the entry point needs");
}

/// The layers of an image that can be lazy.
fn targets(manifest: &Manifest, subject: &Subject) -> Vec<Target> {
    let target = |layer: &super::manifest::Described| {
        Some(Target {
            key: LayerKey { blob: layer.blob, toc: layer.toc? },
            spelled: subject.wanted.reference.clone(),
            reference: subject.reference.clone(),
            size: Some(layer.size),
        })
    };
    manifest.layers.iter().filter_map(target).collect()
}

/// Fetches what the image was seen to read of one of its layers, as soon as that is open.
fn follow_own(opener: &Arc<Opener>, target: Target, plan: PlanId) {
    let opening = opener.open_ahead(target);
    tokio::spawn(async move {
        if let Ok(layer) = opening.await {
            layer.start_plan(plan);
        }
    });
}

/// Hands the document's parts to their layers, as soon as these are open.
fn follow(opener: &Arc<Opener>, document: Arc<Document>, targets: Vec<Target>, plan: PlanId) {
    let is_told = |target: &Target| {
        document.layers.iter().any(|part| (part.blob, part.toc) == (target.key.blob, target.key.toc))
    };
    for target in targets.into_iter().filter(|target| is_told(target)) {
        let (opening, document) = (opener.open_ahead(target), Arc::clone(&document));
        tokio::spawn(async move {
            let Ok(layer) = opening.await else { return };
            blocking(move || {
                if layer.learn(plan, &profile::accesses(&document, &layer)) {
                    layer.start_plan(plan);
                }
            })
            .await;
        });
    }
}

// === impl Outcome ===

impl Outcome {
    const ALL: [Self; 4] = [Self::Found, Self::None, Self::Refused, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::None => "none",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

// === impl RemoteLayers ===

impl RemoteLayers {
    /// What is known of the order in which the image `name` is read: a reference as it was pulled, or the digest of a
    /// manifest. Reads files.
    ///
    /// # Errors
    /// Why nothing can be said.
    pub fn image_profile(&self, name: &str) -> Result<Document, String> {
        let images = self.journal.images();
        let is_it = |image: &&crate::admin::ImageStatus| {
            image.reference == name || image.manifest.as_deref() == Some(name)
        };
        let image = images.iter().find(is_it).ok_or_else(|| format!("no pull of {name} is known"))?;
        let digest = image.manifest.as_ref().and_then(|digest| digest.parse::<Digest>().ok());
        let digest =
            digest.ok_or_else(|| format!("the client that pulled {name} did not name its manifest"))?;
        let manifest =
            self.images.kept(digest).ok_or_else(|| format!("{name} was removed: pull it again"))?;
        let open = |layer: &super::manifest::Described| -> Option<Arc<Layer>> {
            self.opener.store.layer(&LayerKey { blob: layer.blob, toc: layer.toc? })
        };
        let layers: Vec<_> = manifest.layers.iter().filter_map(open).collect();
        Ok(profile::describe(digest, plan_of(digest), &layers))
    }
}
