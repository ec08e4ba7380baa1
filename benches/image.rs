//! The images that are started: built from distributions' packages once, and converted once for each version
//! of the converter.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{Context as Sha256, SHA256};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use testkit::{oci_layout, sample_image};
use walkdir::WalkDir;

use crate::programs::{Programs, root};

/// An image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Image {
    /// Debian with Python; the program imports a good part of the standard library.
    Python,
    /// Debian, Python, numpy, scipy, pandas and scikit-learn; the program imports the last two.
    ScikitLearn,
    /// A web server: Debian, Node.js, express and a large client library; ready when it has answered itself.
    Node,
    /// Debian with OpenJDK; the program uses a good part of the class library.
    Openjdk,
    /// What scikit-learn holds, in sixty layers.
    SixtyLayers,
    /// Debian, Python and a file of 2 GiB; the program reads it once in sequence.
    Weights,
    /// The same image; the program maps the file and reads every page of it.
    WeightsMmap,
}

/// An image in an `oci-layout` directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
    pub(crate) tag: String,
}

/// An image, ready to be served.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) plain: Layout,
    pub(crate) estargz: Layout,
}

/// The line by which every image's program says that it is ready.
pub(crate) const READY: &str = "ready";

/// An image with images that hold the same files and share no layer with it, nor with each other.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    pub(crate) image: Prepared,
    pub(crate) variants: Vec<Prepared>,
}

const ESTARGZ_TAG: &str = "estargz";

/// The converter's own chunk size.
const CHUNK: usize = 4 << 20;

impl Image {
    /// As on the command line and in the record.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The command of its container, if it is not the image's own.
    pub(crate) fn command(self) -> &'static [&'static str] {
        match self {
            Self::WeightsMmap => &["/usr/bin/python3", "/program.py", "mmap"],
            _ => &[],
        }
    }

    /// A program that is needed to build it, with the Debian package that has it.
    pub(crate) fn builder(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Node => Some(("npm", "npm")),
            Self::Openjdk => Some(("javac", "openjdk-17-jdk-headless")),
            _ => None,
        }
    }

    /// Builds and converts what is not there yet, with so many variants.
    pub(crate) fn prepare(self, programs: &Programs, variants: usize) -> Result<Family> {
        let (name, dir) = match self {
            Self::Python => ("python", sample_image::python()),
            Self::ScikitLearn => ("scikit-learn", sample_image::scikit_learn()),
            Self::Node => ("node", sample_image::node()),
            Self::Openjdk => ("openjdk", sample_image::openjdk()),
            Self::SixtyLayers => ("sixty-layers", sample_image::sixty_layers()),
            Self::Weights | Self::WeightsMmap => ("weights", sample_image::weights()),
        };
        let image = prepared(programs, name.to_owned(), dir)?;
        let variants =
            (1..=variants).map(|number| variant(programs, &image, number)).collect::<Result<_>>()?;
        Ok(Family { image, variants })
    }
}

/// The image of the data path's benchmark.
pub(crate) fn data_path(programs: &Programs) -> Result<Prepared> {
    prepared(programs, "data-path".to_owned(), sample_image::data_path())
}

/// The image of the memory's benchmark: so many layers with so many small files each.
pub(crate) fn many_files(programs: &Programs, layers: usize, files: usize) -> Result<Prepared> {
    let name = format!("many-files-{layers}x{files}");
    prepared(programs, name, sample_image::many_files(layers, files))
}

/// The sample image in `built`, converted.
fn prepared(programs: &Programs, name: String, built: Result<PathBuf>) -> Result<Prepared> {
    let dir = built.with_context(|| format!("build the image {name}"))?;
    let plain = Layout { dir, tag: sample_image::TAG.to_owned() };
    let estargz = converted(programs, &name, &plain, CHUNK)?;
    Ok(Prepared { name, plain, estargz })
}

/// The variant `number` of `original`.
fn variant(programs: &Programs, original: &Prepared, number: usize) -> Result<Prepared> {
    let name = format!("{}-variant-{number}", original.name);
    let Layout { dir, tag } = &original.plain;
    let kept = kept_once(&name, |building| oci_layout::write_variant(dir, tag, building, number))?;
    let plain = Layout { dir: kept, tag: tag.clone() };
    // What tells the plain variants apart is no part of a conversion: its chunks differ in size instead.
    let estargz = converted(programs, &name, &plain, CHUNK - 4096 * number)?;
    Ok(Prepared { name, plain, estargz })
}

/// `plain` as eStargz in chunks of at most `chunk` bytes.
fn converted(programs: &Programs, name: &str, plain: &Layout, chunk: usize) -> Result<Layout> {
    let dir = kept_once(&format!("{name}-{}", converter()?), |building| {
        let status = Command::new(&programs.starling)
            .arg("convert")
            .arg(format!("--chunk-size={chunk}"))
            .arg(format!("oci:{}:{}", plain.dir.display(), plain.tag))
            .arg(format!("oci:{}:{ESTARGZ_TAG}", building.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("start starling convert")?;
        if !status.success() {
            bail!("starling convert of {name}: {status}");
        }
        Ok(())
    })?;
    Ok(Layout { dir, tag: ESTARGZ_TAG.to_owned() })
}

/// The directory `name`, made by `make` if it is not there; it appears only when it is whole.
fn kept_once(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = root().join("target/bench");
    let kept = dir.join(name);
    if kept.is_dir() {
        return Ok(kept);
    }
    fs::create_dir_all(&dir)?;
    let building = dir.join(format!("{name}.building"));
    if building.exists() {
        fs::remove_dir_all(&building)?;
    }
    eprintln!("making {name}");
    make(&building)?;
    fs::rename(&building, &kept)?;
    Ok(kept)
}

/// A digest of the converter's sources: a conversion by another converter is another image.
fn converter() -> Result<String> {
    let mut hasher = Sha256::new(&SHA256);
    for part in ["estargz/src", "cli/src/convert", "cli/src/convert.rs"] {
        for entry in WalkDir::new(root().join(part)).sort_by_file_name() {
            let entry = entry?;
            if entry.file_type().is_file() {
                hasher.update(&read(entry.path())?);
            }
        }
    }
    let digest = hex::encode(hasher.finish());
    Ok(digest.get(..12).unwrap_or(&digest).to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
