//! Decoding: threads of our own that inflate, verify and write members.
//!
//! They never wait for the network, and for each other only while there is no [`Room`] to inflate into.

mod job;
mod pool;
mod room;

pub(crate) use self::{job::MemberJob, pool::Pool, room::Room};
