//! Answers of credential-provider plugins, kept as long as the plugins allow.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::Rng;
use tokio::time::Instant;

use super::super::{CredentialQuery, Credentials};

/// Answers beyond this number are forgotten when a new one comes; a node has hundreds of images.
const MAX_ANSWERS: usize = 4096;
/// An answer ends up to a tenth of its time early, at most this, at random: nodes that started together do
/// not all ask the cloud at the same moment.
const MAX_JITTER: Duration = Duration::from_secs(300);
/// A plugin whose login was refused is not asked again sooner after its answer than this, and up to twice
/// this at random.
const MIN_AGE: Duration = Duration::from_secs(10);

/// Logins with their keys.
pub(super) type Found = Arc<[(String, Credentials)]>;

/// For what an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum For {
    /// For the one image.
    Image,
    /// For all of the image's registry.
    Registry,
    /// For all images that the plugin is asked for.
    Everything,
}

/// How an answer is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keep {
    pub(super) which: For,
    pub(super) time: Duration,
}

/// A provider's name, and the images that its answer is for.
type Key = (String, For, String);

#[derive(Debug, Default)]
pub(super) struct Cache {
    answers: Mutex<HashMap<Key, Answer>>,
}

#[derive(Debug)]
struct Answer {
    found: Found,
    end: Instant,
    /// Before this it is not given up even if it was refused.
    young_until: Instant,
}

fn key(provider: &str, which: For, query: CredentialQuery<'_>) -> Key {
    let of = match which {
        For::Image => format!("{}/{}", query.host, query.repository),
        For::Registry => query.host.to_owned(),
        For::Everything => String::new(),
    };
    (provider.to_owned(), which, of)
}

// === impl Cache ===

impl Cache {
    /// The answer of `provider` that holds for the query.
    pub(super) fn get(&self, provider: &str, query: CredentialQuery<'_>, now: Instant) -> Option<Found> {
        let answers = self.answers.lock();
        let held = |which| answers.get(&key(provider, which, query)).filter(|answer| now < answer.end);
        let answer = held(For::Image).or_else(|| held(For::Registry)).or_else(|| held(For::Everything));
        answer.map(|answer| answer.found.clone())
    }

    /// Keeps an answer.
    pub(super) fn put(
        &self,
        provider: &str,
        query: CredentialQuery<'_>,
        keep: Keep,
        found: Found,
        now: Instant,
    ) {
        let mut answers = self.answers.lock();
        answers.retain(|_, answer| now < answer.end);
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        let mut random = rand::rng();
        let early = (keep.time / 10).min(MAX_JITTER).mul_f64(random.random());
        let young = MIN_AGE.mul_f64(random.random_range(1.0..2.0));
        let answer = Answer { found, end: now + (keep.time - early), young_until: now + young };
        answers.insert(key(provider, keep.which, query), answer);
    }

    /// Gives up the answers with this login, which was refused, unless they have just come.
    pub(super) fn forget(&self, refused: &Credentials, now: Instant) {
        let gone = |answer: &Answer| {
            now >= answer.young_until && answer.found.iter().any(|(_, login)| login == refused)
        };
        self.answers.lock().retain(|_, answer| !gone(answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Secret;

    fn query(host: &'static str, repository: &'static str) -> CredentialQuery<'static> {
        CredentialQuery { host, repository }
    }

    fn login() -> Credentials {
        Credentials::Password { username: "u".into(), password: Secret::new("p") }
    }

    fn keep(cache: &Cache, which: For, seconds: u64, now: Instant) {
        let found: Found = Arc::from(vec![("example.com".to_owned(), login())]);
        let time = Duration::from_secs(seconds);
        cache.put("one", query("example.com", "a"), Keep { which, time }, found, now);
    }

    #[test]
    fn answers_hold_for_an_image_a_registry_or_everything() {
        for (which, expected) in [
            (For::Image, [true, false, false]),
            (For::Registry, [true, true, false]),
            (For::Everything, [true; 3]),
        ] {
            let cache = Cache::default();
            let now = Instant::now();
            keep(&cache, which, 60, now);
            let images = [query("example.com", "a"), query("example.com", "b"), query("other.com", "a")];
            assert_eq!(images.map(|image| cache.get("one", image, now).is_some()), expected, "{which:?}");
            assert!(cache.get("two", images[0], now).is_none());
        }
    }

    #[test]
    fn answers_end_in_time_and_not_all_at_once() {
        let (caches, start): (Vec<_>, _) = ((0..50).map(|_| Cache::default()).collect(), Instant::now());
        caches.iter().for_each(|cache| keep(cache, For::Image, 1000, start));
        let alive = |seconds| {
            let now = start + Duration::from_secs(seconds);
            caches.iter().filter(|cache| cache.get("one", query("example.com", "a"), now).is_some()).count()
        };
        assert_eq!((alive(899), alive(1001)), (50, 0));
        assert!((1..50).contains(&alive(950)), "{}", alive(950));
    }

    #[test]
    fn a_refused_login_is_given_up_unless_it_is_young() {
        let (cache, start) = (Cache::default(), Instant::now());
        let (image, later) = (query("example.com", "a"), start + Duration::from_secs(20));
        keep(&cache, For::Registry, 3600, start);
        cache.forget(&login(), start);
        assert!(cache.get("one", image, start).is_some(), "a plugin is not run for every refusal");
        cache.forget(&Credentials::IdentityToken(Secret::new("p")), later);
        assert!(cache.get("one", image, later).is_some());
        cache.forget(&login(), later);
        assert!(cache.get("one", image, later).is_none());
    }
}
