//! What is on its way: windows of blobs, received, decoded, verified and written.
//!
//! A miss cuts a [`window`] around what is missing, sized by [`reach`] and [`bandwidth`]. It is received piece by piece
//! ([`receive`]) under the memory [`budget`]; each member goes to the decoding threads as soon as it is whole. Demand
//! starts at once; the [`background`] goes on while there is no [`activity`].

pub(crate) mod activity;
pub(crate) mod back_off;
pub(crate) mod background;
pub(crate) mod bandwidth;
mod blob_ends;
pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod in_flight;
// Not inside of it: `tests/interleaved.rs` takes the file in without them.
#[cfg(test)]
#[path = "fetch/in_flight/tests.rs"]
mod in_flight_tests;
pub(crate) mod large;
pub(crate) mod link;
pub(crate) mod reach;
pub(crate) mod receive;
pub(crate) mod turns;
pub(crate) mod window;
