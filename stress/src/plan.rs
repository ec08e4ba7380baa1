//! Which fault strikes when: a pure function of the seed, so that a run can be repeated.
//!
//! Faults come in lanes that do not wait for each other: a daemon is killed while its containerd starts, while the disk is
//! full and while the registry stalls. Within a lane one thing happens after the other.

use std::{fmt, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::options::Kind;

/// All that strikes in a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) lanes: Vec<Lane>,
}

/// Strikes of one kind, in order of their time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lane {
    pub(crate) kind: Kind,
    pub(crate) strikes: Vec<Strike>,
}

/// What happens at a time since the start.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Strike {
    pub(crate) at: Duration,
    pub(crate) what: What,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What {
    /// SIGKILL for the daemon.
    KillDaemon,
    /// SIGKILL for containerd, which is started again.
    KillContainerd,
    /// The registry behaves in this way for so long.
    Registry(Misbehaviour, Duration),
    /// All tokens that were given out become worthless.
    ExpireTokens,
    /// The disk of the daemon's root is full for so long.
    FillDisk(Duration),
    /// A bit of what is on disk is flipped, at a place that follows from this number.
    FlipBit(u64),
}

/// How the registry misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misbehaviour {
    /// Connections end without an answer, for whatever was asked.
    Down,
    /// Blob requests end without an answer.
    Reset,
    /// Blobs are answered with this status.
    Status(u16),
    /// Blobs are answered with this status and the wish to be asked again a second later.
    Later(u16),
    /// Blobs are not answered.
    Stall,
    /// Some bytes of a blob, then nothing.
    StallBody,
    /// Some bytes of a blob, then the end of the connection.
    Truncate,
    /// Fewer bytes than were asked for.
    Shorten,
    /// A wrong bit in each answer.
    WrongByte,
    /// Redirects lead to addresses that are refused.
    RefusedRedirect,
}

const MISBEHAVIOURS: &[Misbehaviour] = &[
    Misbehaviour::Down,
    Misbehaviour::Reset,
    Misbehaviour::Status(500),
    Misbehaviour::Status(502),
    Misbehaviour::Later(503),
    Misbehaviour::Later(429),
    Misbehaviour::Stall,
    Misbehaviour::StallBody,
    Misbehaviour::Truncate,
    Misbehaviour::Shorten,
    Misbehaviour::WrongByte,
    Misbehaviour::RefusedRedirect,
];

// === impl Plan ===

impl Plan {
    /// The plan of `seed` for a run of `seconds` with so many kills of the daemon. `only` strikes, or all if that is empty.
    pub(crate) fn new(seed: u64, seconds: u64, kills: usize, only: &[Kind]) -> Self {
        let random = |lane: u64| StdRng::seed_from_u64(seed ^ (lane << 56));
        let len = Duration::from_secs(seconds);
        let mut lanes = vec![
            Lane { kind: Kind::Daemon, strikes: scattered(random(1), len, kills, |_| What::KillDaemon) },
            Lane { kind: Kind::Registry, strikes: registry(random(2), len) },
            Lane {
                kind: Kind::Containerd,
                strikes: scattered(random(3), len, count(seconds, 12), |_| What::KillContainerd),
            },
            Lane { kind: Kind::Disk, strikes: disk(random(4), len, count(seconds, 10)) },
            Lane {
                kind: Kind::Bits,
                strikes: scattered(random(5), len, count(seconds, 5), |random| {
                    What::FlipBit(random.random())
                }),
            },
        ];
        lanes.retain(|lane| only.is_empty() || only.contains(&lane.kind));
        Self { lanes }
    }

    /// How often `which` strikes.
    pub(crate) fn count(&self, which: impl Fn(What) -> bool) -> usize {
        self.lanes.iter().flat_map(|lane| &lane.strikes).filter(|strike| which(strike.what)).count()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<_> = self.lanes.iter().flat_map(|lane| &lane.strikes).collect();
        all.sort_by_key(|strike| strike.at);
        all.iter().try_for_each(|strike| writeln!(f, "{:8.3} s  {:?}", strike.at.as_secs_f64(), strike.what))
    }
}

/// Once in `every` seconds, but at least once.
fn count(seconds: u64, every: u64) -> usize {
    usize::try_from((seconds / every).max(1)).unwrap_or(usize::MAX)
}

/// `count` strikes at any moments.
fn scattered(
    mut random: StdRng,
    len: Duration,
    count: usize,
    what: impl Fn(&mut StdRng) -> What,
) -> Vec<Strike> {
    let mut strikes: Vec<_> = (0..count)
        .map(|_| Strike { at: random.random_range(Duration::ZERO..len), what: what(&mut random) })
        .collect();
    strikes.sort_by_key(|strike| strike.at);
    strikes
}

fn registry(mut random: StdRng, len: Duration) -> Vec<Strike> {
    let millis = |random: &mut StdRng, range| Duration::from_millis(random.random_range(range));
    let (mut strikes, mut at) = (Vec::new(), millis(&mut random, 100..1500));
    while at < len {
        if random.random_ratio(1, 8) {
            strikes.push(Strike { at, what: What::ExpireTokens });
        } else {
            let kind = MISBEHAVIOURS[random.random_range(0..MISBEHAVIOURS.len())];
            let lasts = millis(&mut random, 200..1800);
            strikes.push(Strike { at, what: What::Registry(kind, lasts) });
            at += lasts;
        }
        at += millis(&mut random, 200..1500);
    }
    strikes
}

fn disk(mut random: StdRng, len: Duration, count: usize) -> Vec<Strike> {
    let share = len / u32::try_from(count).unwrap_or(1).max(1);
    (0..count)
        .map(|n| {
            let begin = share * u32::try_from(n).unwrap_or(0);
            let at = begin + random.random_range(Duration::ZERO..share / 2);
            Strike { at, what: What::FillDisk(Duration::from_millis(random.random_range(500..3000))) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_plan() {
        assert_eq!(Plan::new(7, 60, 30, &[]), Plan::new(7, 60, 30, &[]));
        assert_ne!(Plan::new(7, 60, 30, &[]), Plan::new(8, 60, 30, &[]));
    }

    #[test]
    fn what_strikes_alone_strikes_as_it_does_with_others() {
        let (all, alone) = (Plan::new(7, 60, 30, &[]), Plan::new(7, 60, 30, &[Kind::Daemon]));
        assert_eq!(alone.lanes, all.lanes[..1]);
        assert!(alone.lanes[0].strikes.iter().all(|strike| strike.what == What::KillDaemon));
    }

    #[test]
    fn every_kind_of_fault_is_in_a_long_plan_and_nothing_is_out_of_time() {
        let plan = Plan::new(1, 600, 200, &[]);
        assert_eq!(plan.count(|what| what == What::KillDaemon), 200);
        for kind in MISBEHAVIOURS {
            assert!(plan.count(|what| matches!(what, What::Registry(k, _) if k == *kind)) > 0, "{kind:?}");
        }
        for other in [What::KillContainerd, What::ExpireTokens] {
            assert!(plan.count(|what| what == other) > 0, "{other:?}");
        }
        for lane in &plan.lanes {
            assert!(lane.strikes.windows(2).all(|pair| pair[0].at <= pair[1].at), "{:?}", lane.kind);
            assert!(lane.strikes.iter().all(|strike| strike.at < Duration::from_secs(600)));
        }
    }
}
