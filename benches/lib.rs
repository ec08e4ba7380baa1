//! Benchmarks against real peers: a registry, containerd and each contender run as processes in a scratch
//! directory, and every sample starts with nothing kept from the one before.
//!
//! What is measured is stated in full in the recorded JSON (`benches/results/`): machine, versions, options,
//! every single sample, and why a contender is missing. Tables and pictures are made from that record only.

#![deny(unsafe_code)]

mod contender;
pub mod datapath;
mod disk;
mod figure;
mod image;
mod machine;
pub mod memory;
mod network;
mod node;
mod origin;
mod picture;
mod process;
mod programs;
mod record;
pub mod startup;
mod statistics;
mod table;
