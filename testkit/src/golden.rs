//! The reference implementation of eStargz, as programs: the Go library builds blobs, and opens and verifies them.
//!
//! The programs are in `testkit/go`, whose `go.mod` pins the library's version. A program that is built already is
//! checked by go itself, once a process.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer};

use crate::peers::go_tools::build_module;

/// What the library tells of one name in a blob, hard links resolved.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoldenNode {
    /// Path from the layer's root, without a slash at either end; the root's is empty.
    pub path: String,
    /// `dir`, `reg`, `symlink`, `char`, `block` or `fifo`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The mode as the archive has it.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file.
    pub size: u64,
    /// A symbolic link's target.
    pub link: String,
    /// Names of a file; for a directory its entries `.` and `..` too.
    pub num_link: u32,
    /// A device's major number.
    pub dev_major: u32,
    /// A device's minor number.
    pub dev_minor: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// SHA-256 of a file that is not empty, in hexadecimal; empty for the rest.
    pub sha256: String,
    /// Extended attributes.
    #[serde(deserialize_with = "attributes")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What the library tells of a blob that it made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoldenBlob {
    /// Digest of the table of contents.
    pub toc_digest: String,
    /// Digest of the uncompressed archive.
    #[serde(rename = "diffID")]
    pub diff_id: String,
}

/// Turns the archive `tar` into the file `blob`; `args` are flags of `esgz-build`, as `-chunk-size=4096`.
///
/// # Errors
/// The program cannot be built, or the library refuses the archive.
pub fn build(tar: &Path, blob: &Path, args: &[&str]) -> Result<GoldenBlob> {
    let output = run(Command::new(program(&BUILD, "esgz-build")?).args(args).arg(tar).arg(blob))?;
    serde_json::from_slice(&output).context("read what esgz-build prints")
}

/// Opens `blob`, verifies every chunk of it, and gives its nodes in the order of a walk.
///
/// # Errors
/// The program cannot be built, or the blob is not what `toc_digest` and the digests in its table of contents vouch for.
pub fn verify(blob: &Path, toc_digest: &str) -> Result<Vec<GoldenNode>> {
    let output = run(Command::new(program(&VERIFY, "esgz-verify")?).arg(blob).arg(toc_digest))?;
    let nodes = serde_json::Deserializer::from_slice(&output).into_iter().collect::<Result<_, _>>();
    nodes.context("read what esgz-verify prints")
}

type Built = OnceLock<Result<PathBuf, String>>;

static BUILD: Built = OnceLock::new();
static VERIFY: Built = OnceLock::new();

fn program(built: &'static Built, name: &str) -> Result<&'static Path> {
    let build = || {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
        build_module(name, &module, &format!("./{name}")).map_err(|error| format!("{error:#}"))
    };
    match built.get_or_init(build) {
        Ok(path) => Ok(path),
        Err(error) => Err(anyhow!("build {name}: {error}")),
    }
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(output.stdout)
}

/// Go writes no attributes as null, and bytes in base 64.
fn attributes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Vec<u8>>, D::Error> {
    let encoded = Option::<BTreeMap<String, Option<String>>>::deserialize(deserializer)?;
    let decode = |(name, value): (String, Option<String>)| {
        let value = BASE64_STANDARD.decode(value.unwrap_or_default()).map_err(serde::de::Error::custom)?;
        Ok((name, value))
    };
    encoded.unwrap_or_default().into_iter().map(decode).collect()
}
