//! Networks between the machine and the registry.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use testkit::Shaping;

/// A network profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Network {
    /// Loopback, as fast as it is.
    None,
    /// A registry in the same region: 5 ms, 1 Gbit/s.
    Near,
    /// A registry in another region: 20 ms, 200 Mbit/s.
    Far,
    /// An edge site: 80 ms, 25 Mbit/s.
    Edge,
}

impl Network {
    /// Its figures.
    pub(crate) fn shaping(self) -> Shaping {
        match self {
            Self::None => Shaping::default(),
            Self::Near => Shaping::new(5, 1000),
            Self::Far => Shaping::new(20, 200),
            Self::Edge => Shaping::new(80, 25),
        }
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::None => "no delay",
            Self::Near => "5 ms, 1 Gbit/s",
            Self::Far => "20 ms, 200 Mbit/s",
            Self::Edge => "80 ms, 25 Mbit/s",
        }
    }
}
