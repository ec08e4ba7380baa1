//! Python: a small image, and a larger one with scikit-learn.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Result;

use super::parts::{build_once, debian_tar, file_tar, made_once, run};
use crate::oci_layout::ImageConfig;

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
pub(super) const SCIKIT_LEARN: &str = "\
import pandas, sklearn, sklearn.ensemble, sklearn.linear_model
print('ready', flush=True)
";

/// A Debian root file system with Python, and the program above it: two layers.
///
/// # Errors
/// Not root, or debootstrap cannot reach Debian's packages.
pub fn python() -> Result<PathBuf> {
    build_once("python", &config(), |scratch, layout| {
        layout.add_gzip_layer(&debian_tar(scratch)?)?;
        layout.add_gzip_layer(&file_tar(scratch, "program", "program.py", STANDARD_LIBRARY)?)
    })
}

/// Debian with Python, a virtual environment's packages (numpy, pandas, scipy, scikit-learn), and the
/// program: three layers.
///
/// # Errors
/// As [`python`], or pip cannot reach PyPI's packages.
pub fn scikit_learn() -> Result<PathBuf> {
    build_once("scikit-learn", &config(), |scratch, layout| {
        layout.add_gzip_layer(&debian_tar(scratch)?)?;
        layout.add_gzip_layer(&packages_tar(scratch)?)?;
        layout.add_gzip_layer(&file_tar(scratch, "program", "program.py", SCIKIT_LEARN)?)
    })
}

/// How Python images run their program.
pub(super) fn config() -> ImageConfig {
    ImageConfig {
        command: vec!["/usr/bin/python3".into(), "/program.py".into()],
        env: vec!["PATH=/usr/local/bin:/usr/bin:/bin".into(), "PYTHONPATH=/venv".into()],
    }
}

/// The packages in `/venv`.
pub(super) fn packages_tar(dir: &Path) -> Result<PathBuf> {
    made_once(dir, "scikit-learn", |root| {
        run(Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--only-binary=:all:"])
            .args(["--python-version", "3.11", "--target"])
            .arg(root.join("venv"))
            .args(["numpy==2.4.6", "pandas==3.1.1", "scipy==1.17.1", "scikit-learn==1.9.1"])
            .stderr(Stdio::null()))
    })
}
