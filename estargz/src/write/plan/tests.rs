//! The tree of a plan against what containerd unpacks from the same archive.

use crate::write::{
    NO_PREFETCH_LANDMARK, Options, PREFETCH_LANDMARK, PlanError,
    tests::{Archive, build_and_parse},
};

use super::{Plan, clean};

fn plan(tar: &[u8]) -> Result<Plan, PlanError> {
    Plan::read(tar, &Options::default())
}

fn names(tar: &[u8]) -> Vec<String> {
    build_and_parse(tar, &Options::default()).names().into_iter().skip(1).map(str::to_owned).collect()
}

fn prioritized(tar: &[u8], files: &[&str]) -> (Vec<String>, Vec<String>) {
    let files = files.iter().map(|&name| name.to_owned()).collect();
    let options = Options { prioritized: files, ..Options::default() };
    let missed = Plan::read(tar, &options).unwrap().missed().to_vec();
    (build_and_parse(tar, &options).names().into_iter().map(str::to_owned).collect(), missed)
}

#[test]
fn later_entries_replace_earlier_ones() {
    let tar = Archive::default().file("a", b"1").file("b", b"2").file("a", b"333").end();
    assert_eq!(names(&tar), ["b", "a"]);
    let tar = Archive::default().dir("d/").file("d/x", b"1").dir("d").end();
    assert_eq!(names(&tar), ["d/x", "d"], "a directory keeps what is in it");
    let tar = Archive::default()
        .dir("d/")
        .file("d/x", b"1")
        .file("d/e/f", b"1")
        .file("d0", b"1")
        .file("d", b"2")
        .end();
    assert_eq!(names(&tar), ["d0", "d"], "a file replaces a directory and all below it");
}

#[test]
fn names_are_cleaned_as_go_cleans_them() {
    for (name, cleaned) in
        [("./a//b/", "a/b"), ("/", ""), ("../../a", "a"), ("a/../../b/.", "b"), ("a/...", "a/...")]
    {
        assert_eq!(clean(name), cleaned, "{name:?}");
    }
}

#[test]
fn drops_what_an_earlier_conversion_added() {
    let tar = Archive::default()
        .file("stargz.index.json", b"{}")
        .file(".prefetch.landmark", b"\x0f")
        .file("./.no.prefetch.landmark", b"\x0f")
        .file("d/.prefetch.landmark", b"kept")
        .end();
    assert_eq!(names(&tar), ["d/.prefetch.landmark"]);
}

#[test]
fn a_replaced_file_lives_on_under_its_other_names() {
    let tar = Archive::default()
        .file("a", b"old content")
        .link("b", "a")
        .link("c", "a")
        .link("d", "b")
        .file("a", b"new")
        .end();
    let parsed = build_and_parse(&tar, &Options::default());
    assert_eq!(&parsed.names()[1..], ["b", "c", "d", "a"]);
    assert_eq!((&parsed.entry("b")["type"], &parsed.entry("b")["size"]), (&"reg".into(), &11.into()));
    assert_eq!(parsed.entry("c")["linkName"], "b");
    assert_eq!(parsed.entry("d")["linkName"], "b");
    assert_eq!(parsed.entry("a")["size"], 3);
}

#[test]
fn links_through_a_replaced_link_are_kept() {
    let tar =
        Archive::default().file("a", b"content").link("b", "a").link("c", "b").file("b", b"other").end();
    let parsed = build_and_parse(&tar, &Options::default());
    assert_eq!(&parsed.names()[1..], ["a", "c", "b"]);
    assert_eq!(parsed.entry("c")["linkName"], "a");
    let tar = Archive::default().file("a", b"content").link("b", "a").link("a", "b").end();
    let parsed = build_and_parse(&tar, &Options::default());
    assert_eq!(&parsed.names()[1..], ["b", "a"]);
    assert_eq!((&parsed.entry("b")["size"], &parsed.entry("a")["linkName"]), (&7.into(), &"b".into()));
}

#[test]
fn refuses_links_without_a_target() {
    for tar in [
        Archive::default().link("a", "b").end(),
        Archive::default().link("a", "b").file("b", b"").end(),
        Archive::default().file("a", b"").link("a", "a").end(),
        Archive::default().dir("b").link("a", "b").end(),
    ] {
        assert!(matches!(plan(&tar), Err(PlanError::HardLink { .. })));
    }
}

#[test]
fn refuses_trees_that_depend_on_other_layers() {
    let tar = Archive::default().add('2', "lib", "usr/lib", b"").file("lib/x/y", b"").end();
    let error = plan(&tar).unwrap_err();
    assert_eq!(error.to_string(), r#""lib/x/y" lies below "lib", which is not a directory in this layer"#);
    assert!(matches!(plan(&Archive::default().add('6', "./", "", b"").end()), Err(PlanError::Root { .. })));
}

#[test]
fn refuses_names_that_json_cannot_hold() {
    // The tar crate takes text only, so a byte of the name is broken afterwards; so is the checksum, by as much.
    let mut tar = Archive::default().file("dir/na1e", b"").end();
    tar[6] = 0xff;
    let sum: u32 = tar[..512]
        .iter()
        .enumerate()
        .map(|(at, &byte)| u32::from(if (148..156).contains(&at) { 32 } else { byte }))
        .sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    match plan(&tar) {
        Err(PlanError::NotUtf8 { what: "the name", name }) => assert_eq!(name, "dir/na\u{fffd}e"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn refuses_what_linux_has_no_room_for() {
    let tar = Archive::default().file(&"n".repeat(256), b"").end();
    assert!(matches!(plan(&tar), Err(PlanError::OutOfRange { what: "name", .. })));
    let tar = Archive::default().xattrs(&[("uid", b"4294967295")]).file("a", b"").end();
    assert!(matches!(plan(&tar), Err(PlanError::OutOfRange { what: "user id", .. })));
}

#[test]
fn refuses_sparse_files_that_are_mostly_a_claim() {
    let sparse = |size: &[u8]| {
        let records: [(&str, &[u8]); 3] =
            [("GNU.sparse.map", b"0,3"), ("GNU.sparse.size", size), ("GNU.sparse.name", b"sparse")];
        Archive::default().xattrs(&records).file("GNUSparseFile.0/sparse", b"abc").end()
    };
    let parsed = build_and_parse(&sparse(b"100000"), &Options::default());
    assert_eq!((&parsed.names()[1], &parsed.entry("sparse")["size"]), (&"sparse", &100_000.into()));
    let error = plan(&sparse(b"9223372036854775807")).unwrap_err();
    assert!(matches!(error, PlanError::OutOfRange { what: "size", .. }), "{error}");
}

#[test]
fn prioritized_files_come_first_with_what_they_need() {
    let tar = Archive::default()
        .dir("./")
        .file("bin/z", b"no directory entry above")
        .dir("usr/")
        .dir("usr/lib/")
        .file("usr/lib/first", b"1")
        .file("usr/lib/target", b"2")
        .link("usr/link", "usr/lib/target")
        .link("usr/link2", "usr/link")
        .end();
    let (names, missed) = prioritized(&tar, &["/usr/link2", "bin/z", "gone", "../bin", "bin/z"]);
    let expected = [
        "./",
        "usr/",
        "usr/lib/",
        "usr/lib/target",
        "usr/link",
        "usr/link2",
        "bin/z",
        PREFETCH_LANDMARK,
        "usr/lib/first",
    ];
    assert_eq!(names, expected);
    assert_eq!(missed, ["gone"]);
    assert!(!names.contains(&NO_PREFETCH_LANDMARK.to_owned()));
}
