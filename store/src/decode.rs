//! Decoding: threads of our own that inflate, verify and write members.
//!
//! They never wait for the network, and for each other only while there is no memory for [`Outputs`].

mod job;
mod outputs;
mod pool;

pub(crate) use self::{job::MemberJob, outputs::Outputs, pool::Pool};
