//! Profiles: which chunks of a layer were read first, and in what order.
//!
//! While a container starts, the [`Recorder`] of each of its layers notes the first access to every chunk: a chunk is
//! the least that can be fetched, so nothing finer is of use. Only reads that reach the daemon are seen; what the
//! kernel has in its page cache is not, so that a warm start sees less than a cold one did. Therefore a recording only
//! ever adds to the [`Profile`] that is there.
//!
//! A layer is shared by images, which read different parts of it. So there is a profile for each image that was seen to
//! start, and one of the layer with what any of them read, for an image of which nothing is known.
//!
//! A profile is kept on the [`Shelf`], which outlives the layer's files: a layer that is pulled again is fetched in the
//! order in which it was read before.

mod file;
mod recorder;
mod shelf;

pub use self::file::{Access, InvalidProfile, Profile};
pub(crate) use self::{
    recorder::{Recorder, Starts, Unsaved},
    shelf::{Book, Shelf},
};
