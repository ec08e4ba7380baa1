//! What is on disk and what is on its way: index, content and chunk-map files, fetch scheduler.

mod source;

pub use source::{BlobSource, ByteStream, Class, SourceError, SourceErrorKind, Tail};
