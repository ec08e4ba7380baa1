//! Profiles of images: what the profiles of their layers say, by file names, in one document.
//!
//! The daemon keeps profiles by layer and chunk (`store`); people and registries exchange [`Document`]s.

mod document;
mod exchange;
mod layers;

pub use document::{Access, Document, InvalidDocument, Part, RECORDED, TYPE};
pub use exchange::{Layers, PullError, pull, push};
pub use layers::{accesses, describe};
