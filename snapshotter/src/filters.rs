//! containerd's filters: the expressions with which List selects snapshots (`pkg/filters`).
//!
//! ```text
//! filter    := selector ("," selector)*        all must match
//! selector  := fieldpath [operator value]      without an operator: the field is there
//! fieldpath := field ("." field)*
//! field     := quoted | [A-Za-z0-9_]+
//! operator  := "==" | "!=" | "~="              "~=" takes a regular expression
//! value     := quoted | [^\s,]+
//! quoted    := a Go string in double quotes; after "~=" also between / or |
//! ```
//!
//! Of several filters one must match; no filter, and an empty one, match everything. Two differences from Go, neither
//! visible with labels that containerd accepts: a quoted text whose escapes do not make UTF-8 is an error, and a value
//! without quotes may hold invisible format characters.

mod parse;
mod quote;
mod scan;
#[cfg(test)]
mod tests;

use regex::Regex;

/// A list of filters, of which one must match. The default matches everything.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    any: Vec<Filter>,
}

/// Why a filter cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter {filter:?} at byte {position}: {reason}")]
pub struct FilterError {
    filter: String,
    position: usize,
    reason: &'static str,
}

/// What can be filtered.
pub trait Fields {
    /// The value of the field at `path`, or `None` if it is not there.
    fn field(&self, path: &[String]) -> Option<&str>;
}

/// Selectors that must all match.
#[derive(Debug, Clone, Default)]
struct Filter {
    all: Vec<Selector>,
}

#[derive(Debug, Clone)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    /// None for an expression that does not compile: it matches nothing, as in containerd.
    Matches(Option<Regex>),
}

// === impl Filters ===

impl Filters {
    /// Parses a List request's filters.
    ///
    /// # Errors
    /// One of them is not a filter.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self, FilterError> {
        let any = filters.iter().map(|filter| parse::filter(filter.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { any })
    }

    /// Whether `object` is selected.
    pub fn select(&self, object: &dyn Fields) -> bool {
        self.any.is_empty() || self.any.iter().any(|filter| filter.matches(object))
    }
}

// === impl Filter ===

impl Filter {
    fn matches(&self, object: &dyn Fields) -> bool {
        self.all.iter().all(|selector| selector.test.holds(object.field(&selector.path)))
    }
}

// === impl Test ===

impl Test {
    /// An absent field is the empty text to all but presence and equality.
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::Present => value.is_some(),
            Self::Equal(expected) => value == Some(expected),
            Self::NotEqual(other) => value.unwrap_or_default() != other,
            Self::Matches(pattern) => {
                pattern.as_ref().is_some_and(|pattern| pattern.is_match(value.unwrap_or_default()))
            }
        }
    }
}
