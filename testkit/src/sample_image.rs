//! Real images, built from Debian and PyPI packages, to pull and run: a small one with Python, and a
//! larger one with scikit-learn. Both run a program that prints `ready` when its imports are done.
//!
//! An image is an `oci-layout` directory with plain gzip layers, built once and kept under
//! `target/images/`; tests and benchmarks convert and push it as they need.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    oci_layout::{ImageConfig, LayoutBuilder},
    requires,
    scratch::Scratch,
};

/// The tag of each sample image in its layout.
pub const TAG: &str = "plain";

/// What the Debian packages are of, and where they come from.
const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
/// The tar of the root file system, among the images.
const DEBIAN: &str = "debian.tar";
/// Held while something is built.
const LOCK: &str = ".lock";
/// The extension of what is under construction.
const BUILDING: &str = "building";

/// What the small image runs: a good part of the standard library, then `ready`.
const STANDARD_LIBRARY: &str = "\
import argparse, asyncio, base64, bz2, calendar, collections, concurrent.futures, configparser, contextlib
import csv, ctypes, dataclasses, datetime, decimal, difflib, email.message, enum, fractions, functools
import gettext, glob, gzip, hashlib, heapq, hmac, html.parser, http.client, http.server, importlib.metadata
import inspect, io, itertools, json, locale, logging.handlers, lzma, math, mimetypes, multiprocessing
import operator, optparse, os, pathlib, pdb, pickle, platform, plistlib, pprint, queue, random, re, sched
import secrets, selectors, shelve, shlex, shutil, signal, smtplib, socket, socketserver, sqlite3, ssl
import statistics, string, struct, subprocess, sys, sysconfig, tarfile, tempfile, textwrap, threading
import timeit, tokenize, tomllib, traceback, tracemalloc, types, typing, unittest.mock, urllib.request
import uuid, wave, weakref, xml.dom.minidom, xml.etree.ElementTree, xmlrpc.client, zipfile, zlib, zoneinfo
assert len(sys.modules) > 200, len(sys.modules)
assert json.loads(json.dumps({'a': [1, 2]})) == {'a': [1, 2]}
assert sqlite3.connect(':memory:').execute('select 6 * 7').fetchone() == (42,)
print('ready', flush=True)
";

/// What the scikit-learn image runs.
const SCIKIT_LEARN: &str = "\
import pandas, sklearn, sklearn.ensemble, sklearn.linear_model
print('ready', flush=True)
";

/// A Debian root file system with Python, and the program above it: two layers.
///
/// # Errors
/// Not root, or debootstrap cannot reach Debian's packages.
pub fn python() -> Result<PathBuf> {
    build_once("python", |scratch, layout| {
        layout.add_gzip_layer(&debian_tar(scratch)?)?;
        layout.add_gzip_layer(&program_tar(scratch, STANDARD_LIBRARY)?)
    })
}

/// Debian with Python, a virtual environment's packages (numpy, pandas, scipy, scikit-learn), and the
/// program: three layers.
///
/// # Errors
/// As [`python`], or pip cannot reach PyPI's packages.
pub fn scikit_learn() -> Result<PathBuf> {
    build_once("scikit-learn", |scratch, layout| {
        layout.add_gzip_layer(&debian_tar(scratch)?)?;
        layout.add_gzip_layer(&packages_tar(scratch)?)?;
        layout.add_gzip_layer(&program_tar(scratch, SCIKIT_LEARN)?)
    })
}

/// The tar of the Debian root file system that both images begin with.
///
/// # Errors
/// As [`python`].
pub fn debian() -> Result<PathBuf> {
    let (dir, _lock) = locked()?;
    debian_tar(&dir)
}

/// Why the Debian root file system cannot be had here, if so: it is neither kept from before, nor can it be built.
pub fn missing() -> Option<String> {
    if images_dir().join(DEBIAN).exists() {
        return None;
    }
    requires::root().or_else(|| requires::program("debootstrap", "--version")).or_else(|| {
        // debootstrap downloads with wget as well, so that both meet the same proxy.
        let release = format!("{MIRROR}/dists/{SUITE}/Release");
        let reached = Command::new("wget")
            .args(["--quiet", "--spider", "--tries=1", "--timeout=10", &release])
            .status()
            .is_ok_and(|status| status.success());
        (!reached).then(|| format!("needs {MIRROR}"))
    })
}

/// Removes what a build that was interrupted left behind. Nothing happens while a build runs.
///
/// # Errors
/// Something cannot be unmounted or removed.
pub fn discard_unfinished() -> Result<()> {
    let Ok(lock) = File::open(images_dir().join(LOCK)) else { return Ok(()) };
    let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else { return Ok(()) };
    for entry in fs::read_dir(images_dir())?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == BUILDING) {
            remove_building(&path)?;
        }
    }
    Ok(())
}

/// Where sample images and what they are made of are kept.
fn images_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images")
}

/// The directory of the images, for us alone until the lock is dropped.
fn locked() -> Result<(PathBuf, Flock<File>)> {
    let dir = images_dir();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    let lock = File::create(dir.join(LOCK))?;
    let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).context("lock the images")?;
    Ok((dir, lock))
}

/// Removes a file or directory under construction, and what debootstrap mounted below it.
fn remove_building(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Scratch::adopt(path).clear();
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Builds the image `name` unless it is there; two processes that want it wait for each other.
fn build_once(name: &str, fill: impl FnOnce(&Path, &mut LayoutBuilder) -> Result<()>) -> Result<PathBuf> {
    let (dir, _lock) = locked()?;
    let done = dir.join(name);
    if done.is_dir() {
        return Ok(done);
    }
    let building = dir.join(name).with_extension(BUILDING);
    remove_building(&building)?;
    let config = ImageConfig {
        command: vec!["/usr/bin/python3".into(), "/program.py".into()],
        env: vec!["PATH=/usr/local/bin:/usr/bin:/bin".into(), "PYTHONPATH=/venv".into()],
    };
    let mut layout = LayoutBuilder::create(&building)?;
    fill(&dir, &mut layout)?;
    layout.finish(TAG, &config)?;
    fs::rename(&building, &done)?;
    Ok(done)
}

/// A new directory to build in, removed when dropped.
fn building(dir: &Path, name: &str) -> Result<Scratch> {
    let path = dir.join(name).with_extension(BUILDING);
    remove_building(&path)?;
    fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
    // A root file system is entered by others than its owner.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(Scratch::adopt(&path))
}

/// The root file system as a tar, kept for the next image.
fn debian_tar(dir: &Path) -> Result<PathBuf> {
    let tar = dir.join(DEBIAN);
    if tar.exists() {
        return Ok(tar);
    }
    let root = building(dir, "debian-root")?;
    let log = File::create(dir.join("debootstrap.log"))?;
    run(Command::new("debootstrap")
        .args(["--variant=minbase", "--include=python3", SUITE])
        .arg(root.path())
        .arg(MIRROR)
        .stdout(log.try_clone()?)
        .stderr(log))?;
    for leftover in ["var/cache/apt/archives", "var/lib/apt/lists"] {
        for entry in fs::read_dir(root.path().join(leftover))?.flatten() {
            if entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
    }
    tar_of(root.path(), &tar)?;
    Ok(tar)
}

fn packages_tar(dir: &Path) -> Result<PathBuf> {
    let tar = dir.join("scikit-learn.tar");
    if tar.exists() {
        return Ok(tar);
    }
    let root = building(dir, "venv")?;
    run(Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--only-binary=:all:"])
        .args(["--python-version", "3.11", "--target"])
        .arg(root.path().join("venv"))
        .args(["numpy==2.4.6", "pandas==3.1.1", "scipy==1.17.1", "scikit-learn==1.9.1"])
        .stderr(Stdio::null()))?;
    tar_of(root.path(), &tar)?;
    Ok(tar)
}

fn program_tar(dir: &Path, program: &str) -> Result<PathBuf> {
    let root = building(dir, "program-root")?;
    fs::write(root.path().join("program.py"), program)?;
    let tar = dir.join("program.tar");
    tar_of(root.path(), &tar)?;
    Ok(tar)
}

/// Packs `root` with numeric owners and a fixed order; the tar appears only when it is whole.
fn tar_of(root: &Path, tar: &Path) -> Result<()> {
    let partial = tar.with_extension(format!("tar.{BUILDING}"));
    run(Command::new("tar")
        .args(["--numeric-owner", "--sort=name", "--xattrs", "--xattrs-include=*", "-C"])
        .arg(root)
        .arg("-cf")
        .arg(&partial)
        .arg("."))?;
    fs::rename(partial, tar)?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
