//! Layers read through the public API, from a source in memory with scripted faults.
// Clippy knows tests by their attribute and not what they call.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "layers/blob.rs"]
mod blob;
#[path = "layers/memory.rs"]
mod memory;

#[path = "layers/background.rs"]
mod background;
#[path = "layers/durability.rs"]
mod durability;
#[path = "layers/fault.rs"]
mod fault;
#[path = "layers/isolation.rs"]
mod isolation;
#[path = "layers/link.rs"]
mod link;
#[path = "layers/model.rs"]
mod model;
#[path = "layers/opening.rs"]
mod opening;
#[path = "layers/plans.rs"]
mod plans;
#[path = "layers/reading.rs"]
mod reading;
#[path = "layers/room.rs"]
mod room;
