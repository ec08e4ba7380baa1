//! Real images, built from Debian, PyPI and npm packages, to pull and run. Each runs a program that prints
//! `ready` when it could do its work.
//!
//! An image is an `oci-layout` directory with plain gzip layers, built once and kept under
//! `target/images/`; tests and benchmarks convert and push it as they need.

pub mod data_path;
pub mod many_files;
mod node;
mod openjdk;
mod parts;
mod python;
mod sixty_layers;
mod weights;

pub use self::{
    data_path::data_path,
    many_files::many_files,
    node::node,
    openjdk::openjdk,
    python::{python, scikit_learn},
    sixty_layers::sixty_layers,
    weights::weights,
};
pub use parts::{debian, discard_unfinished, missing};

/// Python for a container of an image of Debian packages: what their files have to be. Programs follow it.
pub const DEBIAN_SUMS: &str = include_str!("sample_image/debian_sums.py");

/// The tag of each sample image in its layout.
pub const TAG: &str = "plain";
