//! What is on disk and what is on its way: index, content and chunk-map files, fetch scheduler.

mod key;
mod source;

pub use key::LayerKey;
pub use source::{BlobSource, ByteStream, Class, SourceError, SourceErrorKind, Tail};
