//! Layers made to hurt: each is refused, or is read, within 30 s and 512 MiB.
//!
//! Each case runs in a process of its own, whose peak memory the kernel tells.

use std::{
    io::{self, Write as _},
    process::Command,
    time::{Duration, Instant},
};

use flate2::{Compression, read::GzEncoder};

use super::*;

const CASE: &str = "HOSTILE_CASE";
const MOST_TIME: Duration = Duration::from_secs(30);
const MOST_KIB: u64 = 512 << 10;

/// A TOC that is made while it is read, and what becomes of it.
struct Case {
    name: &'static str,
    expected: &'static str,
    toc: fn() -> Box<dyn Read>,
}

const CASES: &[Case] = &[
    Case {
        name: "ten million entries",
        expected: "the TOC has more than 1200000 entries",
        toc: || {
            entries(10_000_000, |i| {
                format!(r#"{{"name":"{i}","type":"reg","size":1,"offset":1{i},"digest":"{DIGEST}"}}"#)
            })
        },
    },
    Case {
        name: "ten million chunks",
        expected: "the TOC has more than 1200000 entries",
        toc: || {
            entries(10_000_000, |i| match i {
                0 => format!(
                    r#"{{"name":"f","type":"reg","size":1000000000,"chunkSize":1,"offset":1,"chunkDigest":"{DIGEST}"}}"#
                ),
                _ => format!(
                    r#"{{"type":"chunk","chunkOffset":{i},"chunkSize":1,"offset":{i},"chunkDigest":"{DIGEST}"}}"#
                ),
            })
        },
    },
    Case {
        name: "names that are directories for nobody",
        expected: "the TOC has more than 1250000 files and directories",
        toc: || entries(10_000_000, |i| format!(r#"{{"name":"{i}/{}","type":"fifo"}}"#, "d/".repeat(1000))),
    },
    Case {
        name: "long names",
        expected: "the TOC has more than 67108864 bytes of names",
        toc: || entries(10_000_000, |i| format!(r#"{{"name":"{i:0>255}","type":"fifo"}}"#)),
    },
    Case {
        name: "deep names that take turns",
        expected: "the TOC has more than 64000000 directories in its names",
        toc: || {
            entries(40_000, |i| format!(r#"{{"name":"{}{}/f","type":"fifo"}}"#, "d/".repeat(2000), i % 2))
        },
    },
    Case {
        name: "most of everything that is allowed",
        expected: "built",
        toc: || {
            entries(1_190_000, |i| {
                format!(
                    r#"{{"name":"{i:0>45}","type":"reg","size":9,"offset":{},"digest":"{DIGEST}"}}"#,
                    // Not in order, so that sorting has to be done.
                    (i * 7_919) % 1_190_000 + 1
                )
            })
        },
    },
    Case {
        name: "attributes",
        expected: "the TOC has more than 500000 extended attributes",
        toc: || {
            entries(10_000_000, |i| {
                let attributes: Vec<_> = (0..8000).map(|j| format!(r#""{j}":"{:04}""#, i % 10_000)).collect();
                format!(r#"{{"name":"{i}","type":"fifo","xattrs":{{{}}}}}"#, attributes.join(","))
            })
        },
    },
    Case {
        name: "a chain of links from its end",
        expected: "built",
        toc: || {
            entries(600_000, |i| match i {
                599_999 => r#"{"name":"599999","type":"fifo"}"#.to_owned(),
                _ => format!(r#"{{"name":"{i}","type":"hardlink","linkName":"{}"}}"#, i + 1),
            })
        },
    },
    Case {
        // Comparing each target with its siblings would take hours.
        name: "a million names in one directory, every other one a hard link to far away",
        expected: "built",
        toc: || {
            entries(1_000_000, |i| match i % 2 {
                0 => format!(r#"{{"name":"d/{i}","type":"fifo"}}"#),
                _ => format!(r#"{{"name":"d/{i}","type":"hardlink","linkName":"d/{}"}}"#, 999_999 - i),
            })
        },
    },
    Case {
        name: "a circle of links",
        expected: r#"TOC entry "0": is a hard link that leads back to itself"#,
        toc: || {
            entries(600_000, |i| {
                format!(r#"{{"name":"{i}","type":"hardlink","linkName":"{}"}}"#, (i + 1) % 600_000)
            })
        },
    },
    Case {
        name: "a name without an end",
        expected: "the TOC has more than 524288 bytes in one entry",
        toc: || {
            Box::new(compress(
                limits::TOC_LEN,
                io::Cursor::new(r#"{"entries":[{"name":""#).chain(io::repeat(b'x')),
            ))
        },
    },
    Case {
        name: "spaces without an end",
        expected: "the TOC has more than 524288 bytes in one entry",
        toc: || {
            Box::new(compress(limits::TOC_LEN, io::Cursor::new(r#"{"entries":["#).chain(io::repeat(b' '))))
        },
    },
    Case {
        name: "lists in lists",
        expected: "the TOC has more than 524288 bytes in one entry",
        toc: || Box::new(compress(limits::TOC_LEN, io::Cursor::new(r#"{"x":"#).chain(io::repeat(b'[')))),
    },
    Case {
        name: "lists in an entry",
        expected: "the TOC has more than 524288 bytes in one entry",
        toc: || {
            Box::new(compress(
                limits::TOC_LEN,
                io::Cursor::new(r#"{"entries":[{"x":"#).chain(io::repeat(b'[')),
            ))
        },
    },
    Case {
        name: "a TOC over the limit",
        expected: "the TOC has more than 1073741824 bytes",
        toc: || Box::new(compress(limits::TOC_LEN + 1, io::repeat(b' '))),
    },
    Case {
        name: "a gzip header without an end",
        expected: "the TOC's compressed data is damaged or cut",
        toc: || Box::new(io::Cursor::new([0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0xff]).chain(io::repeat(b'x'))),
    },
    Case {
        name: "compressed bytes without an end",
        expected: "the TOC has more than 268435456 compressed bytes",
        // Stored blocks of nothing.
        toc: || {
            Box::new(
                io::Cursor::new([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])
                    .chain(blob::repeat(&[0, 0, 0, 0xff, 0xff])),
            )
        },
    },
];

const DIGEST: &str = "sha256:0101010101010101010101010101010101010101010101010101010101010101";

#[test]
fn cost_little() {
    let mut report = String::new();
    let mut bad = false;
    for case in CASES {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "toc::tests::hostile::child", "--nocapture"])
            .env(CASE, case.name)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.split_once("RESULT ")).map_or("", |(_, line)| line);
        let mut fields = line.splitn(3, ' ');
        let millis: u64 = fields.next().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
        let kib: u64 = fields.next().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
        let result = fields.next().unwrap_or_default();
        let good = result == case.expected && Duration::from_millis(millis) < MOST_TIME && kib < MOST_KIB;
        bad |= !good;
        writeln!(
            report,
            "{} {}: {millis} ms, {kib} KiB: {result}",
            if good { "ok " } else { "BAD" },
            case.name
        )
        .unwrap();
    }
    println!("{report}");
    assert!(!bad, "{report}");
}

/// What [`cost_little`] starts for each case.
#[test]
fn child() {
    let Ok(name) = std::env::var(CASE) else { return };
    let case = CASES.iter().find(|case| case.name == name).unwrap();
    let start = Instant::now();
    let result = match build_index((case.toc)(), TOC_OFFSET, TOC_OFFSET + (1 << 30)) {
        Ok(built) => Index::parse(built.index).map_or_else(|error| error.to_string(), |_| "built".to_owned()),
        Err(error) => error.to_string(),
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    writeln!(io::stdout(), "RESULT {} {peak} {result}", start.elapsed().as_millis()).unwrap();
}

/// A TOC of so many entries.
fn entries(count: u64, entry: fn(u64) -> String) -> Box<dyn Read> {
    // Its length is known once it was made; what is left of the longest one is spaces, which JSON may end with.
    let len = if count > 1_200_000 { limits::TOC_LEN } else { blob::entries_len(count, entry) };
    // Stored, not compressed: the time is for reading.
    Box::new(GzEncoder::new(blob::toc_entry(len, blob::entries(count, entry)), Compression::none()))
}

fn compress(len: u64, json: impl Read) -> impl Read {
    GzEncoder::new(blob::toc_entry(len, json), Compression::fast())
}

#[test]
fn a_section_that_is_cut_is_refused() {
    let json = blob::toc_json(&[reg("a/b"), dir("c")]);
    let mut tar = blob::tar_header("stargz.index.json", json.len() as u64);
    tar.extend(&json);
    let whole = blob::gzip(&tar);
    assert!(build_index(whole.as_slice(), 10, 20).is_ok());
    // The last bytes are the end mark of the data and the trailer, which the digest makes unnecessary.
    for len in 0..whole.len() - 12 {
        let error = build_index(&whole[..len], 10, 20).unwrap_err();
        assert_eq!(error.reason(), Reason::Damaged, "{len}");
    }
    for len in 0..json.len() {
        let error = build_json(&json[..len]).unwrap_err();
        assert!(matches!(error, TocError::Json(_)), "{len}");
    }
}

#[test]
fn a_section_that_is_not_a_toc_is_refused() {
    let refusal = |tar: &[u8]| build_index(blob::gzip(tar).as_slice(), 10, 20).unwrap_err().to_string();
    let header = |change: fn(&mut tar::Header)| {
        let mut header = tar::Header::new_ustar();
        header.set_path("stargz.index.json").unwrap();
        header.set_size(2);
        change(&mut header);
        header.set_cksum();
        [header.as_bytes(), &b"{}"[..]].concat()
    };
    let not_valid = "the TOC's tar entry is not valid: ";
    assert_eq!(
        refusal(&header(|header| header.set_path("a/stargz.index.json").unwrap())),
        format!("{not_valid}it is not named stargz.index.json")
    );
    assert_eq!(
        refusal(&header(|header| header.set_entry_type(tar::EntryType::Symlink))),
        format!("{not_valid}it is not a regular file")
    );
    assert_eq!(
        refusal(&header(|header| header.as_old_mut().size = *b"0000000000x\0")),
        format!("{not_valid}its header has no length")
    );
    assert_eq!(
        refusal(&header(|header| header.as_old_mut().size = [0xff; 12])),
        format!("{not_valid}its header has no length")
    );
    assert_eq!(refusal(&[0; 600]), format!("{not_valid}its header has no checksum"));
    let mut wrong = header(|_| {});
    wrong[124] ^= 1;
    assert_eq!(refusal(&wrong), format!("{not_valid}its header has a wrong checksum"));
    assert_eq!(refusal(&header(|_| {})), "the TOC is not valid JSON");

    for json in [
        "[]",
        "{",
        "{}x",
        r#"{"entries":{}}"#,
        r#"{"entries":[],"entries":[]}"#,
        r#"{"entries":[{"size":"1"}]}"#,
        r#"{"entries":[]} x"#,
    ] {
        assert!(matches!(build_json(json.as_bytes()), Err(TocError::Json(_))), "{json}");
    }
    assert!(matches!(build_json(br#"{"entries":[],"version":2}"#), Err(TocError::Version(2))));
    for (toc_offset, blob_size) in [(5, 5), (u64::MAX, 5), (5, u64::MAX)] {
        assert!(matches!(build_index(&[][..], toc_offset, blob_size), Err(TocError::Place { .. })));
    }
}

#[test]
fn a_source_that_fails_is_told_from_damage() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection reset"))
        }
    }
    let section = blob::section(&blob::toc_json(&vec![reg("a"); 1000]));
    for len in [0, 5, section.len() / 2] {
        let error = build_index(section[..len].chain(Broken), 10, 20).unwrap_err();
        assert!(matches!(&error, TocError::Read(cause) if cause.to_string() == "connection reset"), "{len}");
        assert_eq!(error.reason(), Reason::Unreadable);
    }
}

#[test]
fn five_thousand_levels_are_refused() {
    assert!(
        refusal(&[reg(&"d/".repeat(5000))]).ends_with("the length of its path is 9999, the limit is 4095")
    );
    // As deep as Linux can name, built and walked without recursion on the library's side.
    let index = build(&[reg(&format!("{}f", "d/".repeat(2047)))]).unwrap();
    assert_eq!(index.node_count(), 2049);
    assert_eq!(index.path(NodeId::new(2049).unwrap()).unwrap().len(), 4095);
}
