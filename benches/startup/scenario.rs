//! What is done with an image on a fresh machine.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// Pull an image that was never there, and run it until it is ready.
    Start,
    /// After that: run it once more at once, in a new container.
    Second,
    /// After that: when all fetching has ended, drop the page cache and run it in a new container.
    Dropped,
    /// Pull an image that was never there, and read all its files.
    Whole,
    /// Pull an image that was never there, and run ten containers of it at once.
    TenContainers,
    /// Pull and run ten images at once that have no layer in common.
    TenImages,
    /// Pull and run an image while three others are still being fetched.
    Busy,
}

impl Scenario {
    /// As on the command line and in the record.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Start => "cold pull to ready",
            Self::Second => "second start, at once",
            Self::Dropped => "start after dropping the page cache, all fetched",
            Self::Whole => "pull and read the whole image",
            Self::TenContainers => "ten containers of one image at once",
            Self::TenImages => "ten images at once",
            Self::Busy => "cold pull to ready while three other images are fetched",
        }
    }

    /// Whether it goes on where another start has ended, or is that start.
    pub(crate) fn continues_a_start(self) -> bool {
        matches!(self, Self::Start | Self::Second | Self::Dropped)
    }

    /// How many other images with the same files it needs.
    pub(crate) fn variants(self) -> usize {
        match self {
            Self::TenImages => 10,
            Self::Busy => 3,
            _ => 0,
        }
    }
}
