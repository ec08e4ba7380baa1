//! What is on disk and what is on its way: index, content and chunk-map files, fetch scheduler, profiles and plans.
//!
//! A [`Store`] keeps [`Layer`]s. A layer's metadata is read once, from the end of its blob, and its content
//! chunk by chunk as it is read: fetched from a [`BlobSource`], verified, kept. Nothing unverified is ever given
//! out, and nothing is recorded as here before it is on disk. The store knows neither HTTP nor FUSE.

#[doc(hidden)]
pub mod benched;
mod config;
mod decode;
mod disk;
mod engine;
mod error;
mod fetch;
mod files;
mod flush;
mod key;
mod layer;
mod plan;
mod profile;
mod room;
mod source;
mod stats;
mod store;
mod sync;
mod sys;

pub use config::StoreConfig;
pub use disk::{Disk, RealDisk};
pub use error::{OpenLayerError, ReadError, StoreError};
pub use fetch::turns::SHORT_REQUESTS;
pub use files::{LayerIndex, Retired};
pub use key::LayerKey;
pub use layer::{Checked, Layer};
pub use plan::PlanId;
pub use profile::{Access, InvalidProfile, Profile};
pub use room::{FileSystem, OnDisk, choose};
pub use source::{Arrival, BlobSource, ByteStream, Class, SourceError, SourceErrorKind, Tail};
pub use stats::LayerStats;
pub use store::{Store, TAIL_LEN};
pub use sys::MappedFile;
