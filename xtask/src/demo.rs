//! The demo.
use anyhow::Result;
/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}
/// Runs.
pub(crate) fn run(_: &Options) -> Result<()> {
    testkit::sample_image::python()?;
    testkit::sample_image::scikit_learn()?;
    Ok(())
}
