//! From a compressed TOC to an index: time for layers of 1,000 and 100,000 entries.
//!
//! `TOC_ENTRIES=1000000 cargo bench -p estargz --bench toc_to_index` builds the index of one such layer
//! once and prints the time and the memory that it took at its peak.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{env, fs, fs::File, hint::black_box, io::Write as _, process::Command, time::Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use estargz::toc::build_index;
use serde_json::{Value, json};
use testkit::blob;

const TOC_OFFSET: u64 = 1 << 40;

/// A layer like that of a language's packages: 20 files to a directory, one symbolic link in ten, attributes on one
/// file in a hundred, one file in fifty of two chunks.
fn entries(count: usize) -> Vec<Value> {
    let mut entries = Vec::with_capacity(count);
    let mut offset = 1u64;
    while entries.len() < count {
        let at = entries.len();
        let dir = format!("usr/lib/python3/dist-packages/package{}/module{}", at / 400, at / 20);
        let attributes = json!({"uid": 1000, "gid": 1000, "modtime": "2024-02-29T12:30:05Z", "mode": 0o755});
        let digest =
            |salt: usize| format!("sha256:{:032x}{:032x}", at as u128 * 0x9e37_79b9_7f4a_7c15_f39c, salt);
        let mut entry = match at % 20 {
            0 => json!({"name": format!("{dir}/"), "type": "dir"}),
            9 | 19 => {
                json!({"name": format!("{dir}/link{at}.so"), "type": "symlink", "linkName": format!("../lib{at}.so.1")})
            }
            _ => {
                json!({"name": format!("{dir}/file{at}.py"), "type": "reg", "size": 10_000, "offset": offset,
                        "digest": digest(1), "chunkDigest": digest(2)})
            }
        };
        entry.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
        if at % 100 == 1 {
            entry["xattrs"] =
                json!({"security.capability": "AQAAAgAgAAAAAAAAAAAAAAAAAAA=", "user.number": "MTIz"});
        }
        let is_cut = at % 50 == 7;
        if is_cut {
            entry["chunkSize"] = json!(6000);
        }
        entries.push(entry);
        offset += 4000;
        if is_cut {
            entries.push(json!({"name": "", "type": "chunk", "offset": offset, "chunkOffset": 6000, "chunkSize": 4000, "chunkDigest": digest(3)}));
            offset += 4000;
        }
    }
    entries
}

fn section(count: usize) -> (Vec<u8>, usize) {
    let json = blob::toc_json(&entries(count));
    (blob::section(&json), json.len())
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("toc_to_index");
    group.sample_size(10);
    for count in [1_000, 100_000] {
        let (section, _) = section(count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_with_input(BenchmarkId::from_parameter(count), &section, |bencher, section| {
            bencher.iter(|| {
                build_index(black_box(section.as_slice()), TOC_OFFSET, TOC_OFFSET + (1 << 30)).unwrap()
            });
        });
    }
    group.finish();
}

/// Builds once, in a process of its own whose memory shows nothing of how the TOC was made.
fn measure_once(count: usize) {
    let (section, json_len) = section(count);
    println!("{count} entries, {json_len} bytes of JSON, {} compressed", section.len());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&section).unwrap();
    drop(section);
    let status = Command::new(env::current_exe().unwrap()).env("TOC_SECTION", file.path()).status().unwrap();
    assert!(status.success());
}

fn measure(section: File) {
    let before = status("VmHWM");
    let start = Instant::now();
    let built = build_index(section, TOC_OFFSET, TOC_OFFSET + (1 << 30)).unwrap();
    let took = start.elapsed();
    println!(
        "{took:.2?}, index of {} bytes, {} KiB at the peak",
        built.index.len(),
        status("VmHWM") - before
    );
}

/// A figure of `/proc/self/status`, in KiB.
fn status(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn main() {
    if let Some(path) = env::var_os("TOC_SECTION") {
        return measure(File::open(path).unwrap());
    }
    if let Some(count) = env::var_os("TOC_ENTRIES") {
        return measure_once(count.to_str().unwrap().parse().unwrap());
    }
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
}
