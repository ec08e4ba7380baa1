//! The image in both forms, in a registry of our own: plain gzip layers for the full pull, eStargz for Starling.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use testkit::{RegistryOptions, Shaping, TestRegistry, sample_image};

use super::Options;
use crate::shell;

/// Repository and tags in the registry.
const REPOSITORY: &str = "sample";
const PLAIN: &str = "plain";
const ESTARGZ: &str = "estargz";

/// A registry that holds both forms.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) registry: TestRegistry,
    programs: PathBuf,
}

impl Images {
    /// Builds or fetches the image, converts it, and starts the registry, shaped as the options say.
    pub(crate) fn prepare(scratch: &Path, programs: PathBuf, options: &Options) -> Result<Self> {
        let starling = programs.join("starling");
        let (layout, tag) = match &options.image {
            None if options.large => (sample_image::scikit_learn()?, sample_image::TAG),
            None => (sample_image::python()?, sample_image::TAG),
            Some(reference) => {
                // The full pull gets the image as it is, so it is copied before it is converted.
                let copy = scratch.join("original");
                let loopback = ["127.", "localhost", "[::1]"].iter().any(|host| reference.starts_with(host));
                shell::run(
                    shell::command("skopeo", &["copy", "--quiet", "--insecure-policy"])
                        .arg(format!("--src-tls-verify={}", !loopback))
                        .arg(format!("docker://{reference}"))
                        .arg(format!("oci:{}:{PLAIN}", copy.display())),
                )?;
                (copy, PLAIN)
            }
        };
        let converted = scratch.join("converted");
        let source = format!("oci:{}:{tag}", layout.display());
        let target = format!("oci:{}:{ESTARGZ}", converted.display());
        let convert = ["convert", &source, &target];
        // What it says is progress; the demo's output is its result alone.
        shell::run(shell::command(&starling.to_string_lossy(), &convert).stdout(io::stderr()))?;
        let registry = TestRegistry::start(RegistryOptions {
            shaping: Shaping::new(options.latency_ms, options.mbit),
            ..RegistryOptions::default()
        })?;
        registry.add_layout(&layout, tag, REPOSITORY, PLAIN).context("serve the image")?;
        registry.add_layout(&converted, ESTARGZ, REPOSITORY, ESTARGZ).context("serve the converted image")?;
        Ok(Self { registry, programs })
    }

    /// What containerd is asked to pull for a full pull.
    pub(crate) fn plain(&self) -> String {
        format!("{}/{REPOSITORY}:{PLAIN}", self.registry.host())
    }

    /// What containerd is asked to pull lazily.
    pub(crate) fn estargz(&self) -> String {
        format!("{}/{REPOSITORY}:{ESTARGZ}", self.registry.host())
    }

    /// The daemon's program.
    pub(crate) fn starlingd(&self) -> PathBuf {
        self.programs.join("starlingd")
    }
}
