//! The images: a real one for those who stay, another of the same files for those who come and go, and a small one of
//! which bits are flipped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use testkit::{
    TestRegistry,
    oci_layout::{ImageConfig, LayoutBuilder, write_variant},
    sample_image,
};

use crate::truth::{Truth, layers};

/// The image that is read all the time.
pub(crate) const STAYS: &str = "stays";
/// The one that is pulled and removed.
pub(crate) const COMES: &str = "comes";
/// The one that is damaged.
pub(crate) const BREAKS: &str = "breaks";
const TAG: &str = "estargz";

/// The images, pushed, and what is in them.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) host: String,
    /// Of the image that stays, and of the one that comes and goes.
    pub(crate) truth: Truth,
    pub(crate) broken_truth: Truth,
    /// The layer of the image that is damaged.
    pub(crate) broken_layer: String,
}

// === impl Images ===

impl Images {
    /// Builds and converts what was not built before, with the program `starling`, and puts it into `registry`.
    pub(crate) fn push(registry: &TestRegistry, starling: &Path, scratch: &Path) -> Result<Self> {
        let plain = sample_image::python()?;
        let stays = kept(starling, &plain, "stress-stays", |_| Ok(plain.clone()))?;
        let variant = scratch.join("variant");
        let comes = kept(starling, &plain, "stress-comes", |tag| {
            write_variant(&plain, tag, &variant, 1)?;
            Ok(variant.clone())
        })?;
        let small = scratch.join("small");
        write_small(&small, scratch)?;
        let breaks = scratch.join("breaks");
        convert(starling, &small, &breaks)?;
        for (layout, repository) in [(&stays, STAYS), (&comes, COMES), (&breaks, BREAKS)] {
            registry.add_layout(layout, TAG, repository, TAG)?;
        }
        let broken_layer = layers(&breaks)?.into_iter().next().context("an image without layers")?;
        Ok(Self {
            host: registry.host(),
            truth: Truth::of_layout(&plain, &scratch.join("truth"))?,
            broken_truth: Truth::of_layout(&small, &scratch.join("small-truth"))?,
            broken_layer,
        })
    }

    /// How clients name the image in `repository`.
    pub(crate) fn reference(&self, repository: &str) -> String {
        format!("{}/{repository}:{TAG}", self.host)
    }
}

/// The converted form of what `source` gives, beside the sample image `plain`; made once for a build of `starling`.
fn kept(
    starling: &Path,
    plain: &Path,
    name: &str,
    source: impl FnOnce(&str) -> Result<PathBuf>,
) -> Result<PathBuf> {
    let dir = plain.with_file_name(name);
    let lock = File::create(plain.with_file_name(format!(".{name}.lock")))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let newest = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if newest(&dir.join("index.json")) <= newest(starling) {
        let _ = fs::remove_dir_all(&dir);
        convert(starling, &source(sample_image::TAG)?, &dir)?;
    }
    Ok(dir)
}

fn convert(starling: &Path, source: &Path, target: &Path) -> Result<()> {
    let mut command = Command::new(starling);
    command.arg("convert").arg(format!("oci:{}:{}", source.display(), sample_image::TAG));
    command.arg(format!("oci:{}:{TAG}", target.display()));
    let output = command.stdin(Stdio::null()).output().context("run starling convert")?;
    ensure!(output.status.success(), "starling convert: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// An image of a few files that do not compress and fill whole blocks: each bit of its content belongs to a file.
fn write_small(layout: &Path, scratch: &Path) -> Result<()> {
    let archive = scratch.join("small.tar");
    let mut builder = tar::Builder::new(File::create(&archive)?);
    let mut random = StdRng::seed_from_u64(1);
    for n in 0..6 {
        let mut bytes = vec![0; 512 << 10];
        random.fill_bytes(&mut bytes);
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("file-{n}"), bytes.as_slice())?;
    }
    builder.into_inner()?;
    let mut image = LayoutBuilder::create(layout)?;
    image.add_gzip_layer(&archive)?;
    image.finish(sample_image::TAG, &ImageConfig::default())?;
    Ok(())
}
