//! A program in Java that uses a good part of the class library.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::parts::{build_once, debian_with, made_once, run};
use crate::oci_layout::ImageConfig;

const PROGRAM: &str = include_str!("openjdk/Application.java");

/// Debian with OpenJDK's headless runtime, and the compiled program: two layers.
///
/// # Errors
/// Not root, no `javac`, or Debian's packages cannot be reached.
pub fn openjdk() -> Result<PathBuf> {
    let config = ImageConfig {
        command: vec!["/usr/bin/java".into(), "-cp".into(), "/app".into(), "Application".into()],
        env: vec!["PATH=/usr/local/bin:/usr/bin:/bin".into()],
    };
    build_once("openjdk", &config, |scratch, layout| {
        layout.add_gzip_layer(&debian_with(scratch, "debian-openjdk", "openjdk-17-jre-headless")?)?;
        let program = made_once(scratch, "openjdk-program", |root| {
            let app = root.join("app");
            std::fs::create_dir(&app)?;
            std::fs::write(app.join("Application.java"), PROGRAM)?;
            run(Command::new("javac")
                .args(["--release", "17", "-d"])
                .arg(&app)
                .arg(app.join("Application.java")))
        })?;
        layout.add_gzip_layer(&program)
    })
}
