//! The layers that are compared.

use tar::EntryType;

use crate::archive::{Archive, Attributes, PLAIN, Xattrs};

/// Bytes that repeat enough to be compressed, and differ from file to file.
pub(crate) fn bytes(len: u32, seed: u32) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(seed | 1) ^ at >> 9 ^ at >> 15) as u8).collect()
}

/// Every kind of node and every attribute that a layer can carry.
pub(crate) fn every_node() -> Archive {
    let mut archive = Archive::new();
    archive.dir("dir", 0o755);
    archive.dir("dir/deeper", 0o1777);
    for (name, mode) in
        [("plain", 0o644), ("setuid", 0o4755), ("setgid", 0o2711), ("none", 0), ("odd", 0o3217)]
    {
        let attributes = Attributes { mode, ..PLAIN };
        archive.add(&format!("dir/{name}"), EntryType::Regular, &attributes, name.as_bytes());
    }
    for (len, name) in [(0, "empty"), (1, "one"), (4096, "page"), (4097, "page+1"), (9_000_019, "big")] {
        archive.file(name, &bytes(len, len));
    }
    archive.link("dir/one again", "one");
    archive.link("dir/deeper/one more", "dir/one again");
    for (name, target) in
        [("link", "dir/plain"), ("broken", "/no/where"), ("up", "../../etc"), ("dir/loop", "loop")]
    {
        archive.symlink(name, target);
    }
    archive.symlink("long link", &"l/".repeat(1000));
    archive.link("link again", "link");
    for (name, kind, device) in [
        ("char", EntryType::Char, (5, 1)),
        ("block", EntryType::Block, (259, 300)),
        ("dir/pipe", EntryType::Fifo, (0, 0)),
    ] {
        archive.add(name, kind, &Attributes { mode: 0o620, device, ..PLAIN }, b"");
    }
    names(&mut archive);
    attributes(&mut archive);
    whiteouts(&mut archive);
    archive
}

fn names(archive: &mut Archive) {
    let long = "n".repeat(255);
    archive.file(&format!("{long}/{long}/ünïcode — ✓ \\ \" \n newline"), b"parents without entries");
    archive.dir(&format!("{}x", "x/".repeat(60)), 0o700);
}

fn attributes(archive: &mut Archive) {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let big = [b'x'; 3000];
    let sets: [(&str, Xattrs<'_>); 4] = [
        ("text", &[("user.text", b"text"), ("user.bytes", &[0, 255, b'\n', b'=', 1])]),
        ("capability", &[("security.capability", &capability)]),
        ("big", &[("user.big", &big)]),
        ("trusted", &[("trusted.dropped", b"dropped"), ("user.kept", b"kept")]),
    ];
    archive.add("xattrs", EntryType::Directory, &Attributes { mode: 0o755, xattrs: sets[0].1, ..PLAIN }, b"");
    for (name, xattrs) in sets {
        let path = format!("xattrs/{name}");
        archive.add(&path, EntryType::Regular, &Attributes { xattrs, ..PLAIN }, name.as_bytes());
    }
    for (name, mtime) in [("epoch", 0), ("far", 5_000_000_000), ("before", -100)] {
        archive.add(&format!("times/{name}"), EntryType::Regular, &Attributes { mtime, ..PLAIN }, b"t");
    }
    for (name, owner) in [("root", (0, 0)), ("big", (2_097_152, 65_534)), ("mapped", (3_000_000_000, 7))] {
        archive.add(&format!("owners/{name}"), EntryType::Regular, &Attributes { owner, ..PLAIN }, b"o");
    }
}

fn whiteouts(archive: &mut Archive) {
    archive.dir("opaque", 0o750);
    for name in [".wh.gone", "dir/.wh.gone too", "opaque/.wh..wh..opq"] {
        archive.file(name, b"");
    }
    archive.file("opaque/new", b"new");
}

/// Files with 20 names each, which follow one another in chains.
pub(crate) fn hard_links() -> Archive {
    let mut archive = Archive::new();
    for file in 0..200_u32 {
        archive.file(&format!("file {file}"), &bytes(file * 10, file));
        let mut target = format!("file {file}");
        for link in 0..19 {
            let path = format!("links/{link}/of {file}");
            archive.link(&path, &target);
            target = path;
        }
    }
    archive
}

/// 100,000 small files.
pub(crate) fn many_files() -> Archive {
    let mut archive = Archive::new();
    for dir in 0..100 {
        archive.dir(&format!("dir{dir}"), 0o755);
        for file in 0..1000 {
            archive.file(&format!("dir{dir}/file{file}"), format!("{dir} {file}").as_bytes());
        }
    }
    archive
}
