//! Blobs made to hurt, through the real daemon: each falls back or ends in errors, soon and in bounded memory, and the
//! daemon serves an honest layer afterwards.
//!
//! One daemon has all of them, so that its peak memory (`VmHWM`) is that of the worst.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "lazy/client.rs"]
#[allow(dead_code, reason = "shared with lazy.rs, which needs more of it")]
mod client;
#[path = "lazy/image.rs"]
#[allow(dead_code, reason = "shared with lazy.rs, which needs more of it")]
mod image;
#[path = "lazy/node.rs"]
#[allow(dead_code, reason = "shared with lazy.rs, which needs more of it")]
mod node;

use std::{
    fs,
    io::{self, Read},
    path::Path,
    time::{Duration, Instant},
};

use flate2::{Compression, read::GzEncoder};
use serde_json::{Value, json};
use testkit::{
    blob::{self, Blob, Finished},
    registry::{RegistryOptions, TestRegistry},
    requires, skip_unless,
};

use self::{
    client::Prepared,
    image::{Image, Layer},
    node::{Node, ON_DEMAND},
};

const MOST_TIME: Duration = Duration::from_secs(30);
const MOST_KIB: u64 = 512 << 10;

/// What a blob comes to.
enum End {
    /// A fall-back with this code, whose reason has these words.
    FallsBack(&'static str, &'static str),
    /// It is lazy, and every file in it fails to be read.
    ReadsFail,
}

struct Case {
    name: &'static str,
    end: End,
    blob: fn() -> Finished,
}

const CASES: &[Case] = &[
    Case {
        name: "huge-size",
        end: End::FallsBack("over-limit", "\"f\""),
        blob: || of_entries(&[file(json!({ "size": i64::MAX, "chunkSize": i64::MAX }))]),
    },
    Case {
        name: "negative-size",
        end: End::FallsBack("bad-toc", "\"f\""),
        blob: || of_entries(&[file(json!({ "size": -1 }))]),
    },
    Case {
        name: "negative-chunk",
        end: End::FallsBack("bad-toc", "\"f\""),
        blob: || of_entries(&[file(json!({ "size": 10, "chunkSize": -10 }))]),
    },
    Case {
        name: "outside",
        end: End::FallsBack("over-limit", "the offset of its content is 1099511627776"),
        blob: || of_entries(&[file(json!({ "offset": 1_u64 << 40 }))]),
    },
    Case {
        name: "negative-offset",
        end: End::FallsBack("bad-toc", "\"f\""),
        blob: || of_entries(&[file(json!({ "offset": -5 }))]),
    },
    Case {
        name: "circle",
        end: End::FallsBack("bad-toc", "leads back to itself"),
        blob: || {
            let link = |name: &str, to: &str| json!({ "name": name, "type": "hardlink", "linkName": to });
            of_entries(&[link("a", "b"), link("b", "c"), link("c", "a")])
        },
    },
    Case {
        name: "deep",
        end: End::FallsBack("over-limit", "the limit is 4095"),
        blob: || of_entries(&[json!({ "name": "d/".repeat(5000), "type": "dir" })]),
    },
    Case {
        name: "ten-million-entries",
        end: End::FallsBack("over-limit", "the TOC has more than 1200000 entries"),
        blob: || {
            const ENTRY: &[u8] = br#"{"name":"f","type":"fifo"},"#;
            let json = io::Cursor::new(br#"{"entries":["#).chain(blob::repeat(ENTRY));
            of_json(10_000_000 * ENTRY.len() as u64, json)
        },
    },
    Case {
        name: "toc-bomb",
        end: End::FallsBack("over-limit", "bytes in one entry"),
        blob: || of_json(1 << 30, io::Cursor::new(br#"{"entries":["#).chain(blob::repeat(b" "))),
    },
    Case {
        name: "endless-name",
        end: End::FallsBack("over-limit", "bytes in one entry"),
        blob: || of_json(64 << 20, io::Cursor::new(br#"{"entries":[{"name":""#).chain(blob::repeat(b"x"))),
    },
    Case {
        name: "content-bomb",
        end: End::ReadsFail,
        blob: || {
            // 512 MiB of zeros before the file's byte, in half a megabyte.
            const BEFORE: u64 = 512 << 20;
            let mut member = vec![0];
            GzEncoder::new(io::repeat(0).take(BEFORE + 10), Compression::fast())
                .read_to_end(&mut member)
                .unwrap();
            let entry = file(json!({ "size": 10, "innerOffset": BEFORE }));
            Finished::new(member, &blob::toc_json(&[entry]))
        },
    },
    Case {
        name: "not-gzip",
        end: End::ReadsFail,
        blob: || Finished::new(vec![0xa5; 4096], &blob::toc_json(&[file(json!({}))])),
    },
    Case { name: "cut-by-1", end: End::FallsBack("not-estargz", ""), blob: || cut(1) },
    Case { name: "cut-by-25", end: End::FallsBack("not-estargz", ""), blob: || cut(25) },
    Case { name: "cut-by-50", end: End::FallsBack("not-estargz", ""), blob: || cut(50) },
    Case {
        name: "footer-beyond",
        end: End::FallsBack("not-estargz", ""),
        blob: || {
            let mut blob = honest();
            let end = blob.bytes.len() - 51;
            blob.bytes.truncate(end);
            blob.bytes.extend(blob::footer(u64::MAX));
            blob
        },
    },
];

/// A file of ten bytes whose digest fits nothing, with some fields set otherwise. An offset of 0 would be none at all.
fn file(fields: Value) -> Value {
    let digest = blob::digest(b"something else");
    let mut entry = json!({ "name": "f", "type": "reg", "size": 10, "offset": 1, "digest": digest, "chunkDigest": digest });
    entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    entry
}

fn of_entries(entries: &[Value]) -> Finished {
    Finished::new(blob::gzip(&[0; 1024]), &blob::toc_json(entries))
}

/// A blob whose TOC says that it has `len` bytes, and has what `json` gives.
fn of_json(len: u64, json: impl Read) -> Finished {
    let mut section = Vec::new();
    let toc = blob::toc_entry(len, json.take(len));
    GzEncoder::new(toc, Compression::fast()).read_to_end(&mut section).unwrap();
    Finished::with_section(blob::gzip(&[0; 1024]), &section)
}

fn honest() -> Finished {
    Blob::default().file("f", &[7; 1000], 1000).finish()
}

fn cut(bytes: usize) -> Finished {
    let mut blob = honest();
    blob.bytes.truncate(blob.bytes.len() - bytes);
    blob
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_blobs_cost_themselves_only() {
    skip_unless!(requires::fuse());
    let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
    let mut node = Node::start(ON_DEMAND).await;
    for Case { name, end, blob } in CASES {
        let layer = Layer::of(&registry, blob());
        let image = Image::push(&registry, name, vec![layer]);
        let began = Instant::now();
        match (end, node.prepare(&image.containerd_labels(0), "").await) {
            (End::FallsBack(code, words), Prepared::Ordinary(_)) => {
                let (told, reason) = node.reason(&image, 0).unwrap();
                assert!(told == *code && reason.contains(words), "{name}: {told}: {reason}");
            }
            (End::ReadsFail, Prepared::Lazy(_)) => {
                let path = node.path(&image.layers[0]).join("f");
                let error = tokio::task::spawn_blocking(move || fs::read(path)).await.unwrap().unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}: {error}");
            }
            (_, prepared) => panic!("{name}: {prepared:?}\n{}", node.daemon.log()),
        }
        let (took, peak) = (began.elapsed(), peak_kib(node.daemon.pid()));
        println!("{name}: {} ms, {peak} KiB at most so far", took.as_millis());
        assert!(took < MOST_TIME, "{name} took {took:?}");
        assert!(peak < MOST_KIB, "{name} made the daemon as large as {peak} KiB");
    }
    let honest = Layer::new(&registry, 1, 3, 300_000);
    node.pull(&Image::push(&registry, "honest", vec![honest.clone()])).await;
    assert!(node.read(&honest) == honest.files);
}

/// The most memory that the process ever had resident.
fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}
