//! containerd's wire: descriptions of our own writing in `wire/`, with the fields Starling uses and the
//! field numbers of containerd's API, and the code generated from them. Nothing else lives here.

#![forbid(unsafe_code)]

pub use wire::containerd::{
    services::{
        content::v1 as content, images::v1 as images, introspection::v1 as introspection,
        snapshots::v1 as snapshots, streaming::v1 as streaming, transfer::v1 as transfer,
    },
    types,
};

#[allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
}
