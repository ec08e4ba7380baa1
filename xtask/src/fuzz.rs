//! `cargo xtask fuzz`: libFuzzer over the parsers of outside bytes.
//!
//! The coverage instrumentation is asked of the stable compiler by its `-C` options, so neither a nightly
//! toolchain nor cargo-fuzz is needed; the crate in `fuzz/` has cargo-fuzz's layout for those who have it.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use clap::Args;

use crate::shell;

/// libFuzzer's own instrumentation, as cargo-fuzz asks for it.
const INSTRUMENTATION: &str = "--cfg fuzzing -Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cdebug-assertions -Coverflow-checks";

/// Which targets, how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds a target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Targets; all when none is named
    targets: Vec<String>,
}

impl Options {
    /// All targets, `seconds` each.
    pub(crate) fn for_each_target(seconds: u32) -> Self {
        Self { seconds, targets: Vec::new() }
    }
}

/// Builds the targets and runs one after the other, starting from the corpus in the repository.
///
/// # Errors
/// A target does not build, or finds an input that fails: libFuzzer prints it and keeps it in
/// `fuzz/artifacts/`.
pub(crate) fn run(options: &Options) -> Result<()> {
    shell::stage("fuzz targets");
    let fuzz = shell::root().join("fuzz");
    let host = host_triple()?;
    let targets = if options.targets.is_empty() { all_targets(&fuzz)? } else { options.targets.clone() };
    shell::run(
        shell::cargo(&[
            "build",
            "--quiet",
            "--release",
            "--manifest-path",
            "fuzz/Cargo.toml",
            "--target",
            &host,
        ])
        .env("RUSTFLAGS", INSTRUMENTATION),
    )?;
    for target in &targets {
        let grown = fuzz.join("corpus-grown").join(target);
        let artifacts = fuzz.join("artifacts").join(target);
        fs::create_dir_all(&grown)?;
        fs::create_dir_all(&artifacts)?;
        println!("--- {target}: {} s", options.seconds);
        let program = fuzz.join("target").join(&host).join("release").join(target);
        let mut command = shell::command(&program.to_string_lossy(), &[]);
        command
            .arg(format!("-max_total_time={}", options.seconds))
            .args(["-rss_limit_mb=1024", "-timeout=20", "-verbosity=0", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(&grown);
        let corpus = fuzz.join("corpus").join(target);
        if corpus.is_dir() {
            command.arg(corpus);
        }
        shell::run(&mut command)?;
    }
    Ok(())
}

/// The names of the files in `fuzz/fuzz_targets/`.
fn all_targets(fuzz: &Path) -> Result<Vec<String>> {
    let dir = fuzz.join("fuzz_targets");
    let mut names: Vec<String> = fs::read_dir(&dir)
        .with_context(|| format!("read {}", dir.display()))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

fn host_triple() -> Result<String> {
    let output = shell::command("rustc", &["-vV"]).output().context("run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc names no host")
}
