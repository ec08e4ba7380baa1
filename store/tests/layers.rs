//! Layers read through the public API, from a source in memory with scripted faults.

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
#[path = "layers/model.rs"]
mod model;
#[path = "layers/opening.rs"]
mod opening;
#[path = "layers/reading.rs"]
mod reading;
