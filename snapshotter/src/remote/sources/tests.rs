use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use parking_lot::Mutex;
use store::{ByteStream, SourceErrorKind};

use super::*;

const PATIENCE: Duration = Duration::from_millis(100);
const LEN: u64 = 100_000;

/// What a place does.
#[derive(Debug, Clone, Copy)]
enum Does {
    Send,
    Fail(SourceErrorKind),
    Hang,
    /// Sends this many bytes, then nothing.
    HangAfter(usize),
    /// Sends this many bytes, then ends.
    EndAfter(usize),
    /// Sends a byte now and then.
    Drip,
    Lie,
}

struct Fake {
    name: &'static str,
    does: Does,
    asked: Mutex<Vec<Range<u64>>>,
}

fn fake(name: &'static str, does: Does) -> Arc<Fake> {
    Arc::new(Fake { name, does, asked: Mutex::default() })
}

fn truth(range: Range<u64>) -> Bytes {
    range.map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

#[async_trait]
impl BlobSource for Fake {
    async fn read_tail(&self, len: u64) -> Result<Tail, SourceError> {
        let stream = self.read_range(LEN - len..LEN, Class::Demand).await?;
        let bytes = stream.try_fold(Vec::new(), |all, piece| async move { Ok([&all[..], &piece].concat()) });
        Ok(Tail { bytes: bytes.await?.into(), blob_size: LEN, arrival: None })
    }

    async fn read_range(&self, range: Range<u64>, _: Class) -> Result<ByteStream, SourceError> {
        self.asked.lock().push(range.clone());
        let bytes = truth(range);
        let pieces = |bytes: Bytes| stream::iter([Ok(bytes)]);
        Ok(match self.does {
            Does::Send => pieces(bytes).boxed(),
            Does::Fail(kind) => return Err(SourceError::new(kind, self.name)),
            Does::Hang => return future::pending().await,
            Does::HangAfter(len) => pieces(bytes.slice(..len)).chain(stream::pending()).boxed(),
            Does::EndAfter(len) => pieces(bytes.slice(..len)).boxed(),
            Does::Drip => stream::iter(bytes)
                .then(|byte| async move {
                    tokio::time::sleep(PATIENCE / 10).await;
                    Ok(Bytes::copy_from_slice(&[byte]))
                })
                .boxed(),
            Does::Lie => pieces(vec![255; bytes.len()].into()).boxed(),
        })
    }

    fn distrust(&self) {}

    fn describe(&self) -> String {
        self.name.to_owned()
    }
}

fn sources(places: &[(&'static str, Does)]) -> Sources {
    let sources = Sources::new(PATIENCE);
    for (name, does) in places {
        sources.add(name, fake(name, *does));
    }
    sources
}

async fn read(sources: &Sources, range: Range<u64>) -> Result<Bytes, SourceError> {
    let stream = sources.read_range(range, Class::Demand).await?;
    let bytes = stream.try_fold(Vec::new(), |all, piece| async move { Ok([&all[..], &piece].concat()) });
    bytes.await.map(Bytes::from)
}

#[tokio::test]
async fn the_next_place_is_tried_and_then_remembered() {
    let sources = sources(&[("gone", Does::Fail(SourceErrorKind::NotFound)), ("good", Does::Send)]);
    assert_eq!(sources.references(), ["gone", "good"]);
    assert_eq!(sources.read_tail(9).await.unwrap().bytes, truth(LEN - 9..LEN));
    assert_eq!(sources.references(), ["good", "gone"]);
    assert_eq!(sources.describe(), "good");
}

#[tokio::test]
async fn if_none_works_the_first_says_why() {
    assert_eq!(sources(&[]).read_tail(1).await.unwrap_err().kind, SourceErrorKind::NotFound);
    let both = [("a", Does::Fail(SourceErrorKind::TimedOut)), ("b", Does::Fail(SourceErrorKind::Forbidden))];
    let error = read(&sources(&both), 0..1).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (SourceErrorKind::TimedOut, "a"));
}

#[test]
fn new_places_come_last_and_drive_out_only_the_last() {
    let sources = sources(&[]);
    for name in ["a", "b", "c", "d", "e", "b"] {
        sources.add(name, fake(name, Does::Send));
    }
    assert_eq!(sources.references(), ["a", "b", "c", "e"]);
}

#[tokio::test]
async fn a_place_that_hangs_keeps_no_read_for_long() {
    for does in [Does::Hang, Does::HangAfter(0), Does::HangAfter(20_000), Does::EndAfter(7), Does::Drip] {
        let sources = sources(&[("bad", does), ("worse", Does::Hang), ("good", Does::Send)]);
        let began = Instant::now();
        assert_eq!(read(&sources, 10..LEN).await.unwrap(), truth(10..LEN), "{does:?}");
        assert!(began.elapsed() < PATIENCE * 10, "{does:?}: {:?}", began.elapsed());
        assert_eq!(sources.references()[0], "good", "{does:?}");
    }
    let sources = sources(&[("bad", Does::Hang), ("good", Does::Send)]);
    assert_eq!(sources.read_tail(5).await.unwrap().bytes, truth(LEN - 5..LEN));
}

#[tokio::test]
async fn what_was_received_is_not_asked_for_again() {
    let (slow, good) = (fake("slow", Does::HangAfter(20_000)), fake("good", Does::Send));
    let sources = sources(&[]);
    sources.add("slow", slow);
    sources.add("good", good.clone());
    assert_eq!(read(&sources, 10..LEN).await.unwrap(), truth(10..LEN));
    assert_eq!(good.asked.lock().iter().collect::<Vec<_>>(), [&(20_010..LEN)]);
}

#[tokio::test]
async fn a_slow_place_is_waited_for_if_no_other_works() {
    let others = Does::Fail(SourceErrorKind::NotFound);
    let sources = sources(&[("slow", Does::Drip), ("gone", others)]);
    assert_eq!(read(&sources, 0..30).await.unwrap(), truth(0..30));
}

#[tokio::test]
async fn places_that_all_break_off_end_in_an_error() {
    let sources = sources(&[("a", Does::EndAfter(3)), ("b", Does::EndAfter(3))]);
    let error =
        tokio::time::timeout(Duration::from_secs(5), read(&sources, 0..LEN)).await.unwrap().unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Protocol);
}

#[tokio::test]
async fn the_place_that_lied_goes_to_the_end_and_no_other() {
    let sources = sources(&[("liar", Does::Lie), ("good", Does::Send), ("other", Does::Send)]);
    // Two requests were under way when the first of them turned out to be wrong.
    for range in [0..50, 50..100] {
        assert_ne!(read(&sources, range.clone()).await.unwrap(), truth(range));
    }
    sources.distrust_range(10..20);
    assert_eq!(sources.references(), ["good", "other", "liar"]);
    assert_eq!(read(&sources, 10..20).await.unwrap(), truth(10..20));
    sources.distrust_range(60..70);
    assert_eq!(sources.references(), ["good", "other", "liar"]);
    sources.distrust();
    assert_eq!(sources.references(), ["other", "liar", "good"]);
}

#[test]
fn every_place_gets_its_chance_within_half_the_time() {
    assert_eq!(patience(Duration::from_secs(60)), Duration::from_secs(5));
    assert_eq!(patience(Duration::from_secs(8)), Duration::from_secs(1));
    assert_eq!(patience(Duration::ZERO), SHORTEST_PATIENCE);
}
