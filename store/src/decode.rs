//! Decoding: threads of our own that inflate, verify and write members.
//!
//! They never wait for the network, nor for each other.

mod job;
mod pool;

pub(crate) use self::{job::MemberJob, pool::Pool};
