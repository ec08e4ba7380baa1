//! Archives by other programs, and headers of our own read by the tar crate.

use std::{collections::BTreeMap, io::Read, process::Command};

use proptest::prelude::*;

use super::*;

fn members(tar: &[u8]) -> Result<Vec<Member>, TarError> {
    let mut walker = Walker::new(tar);
    let mut members = Vec::new();
    while let Some(item) = walker.next_item()? {
        if let Item::Member(member) = item {
            members.push(*member);
        }
    }
    Ok(members)
}

fn content(tar: &[u8], member: &Member) -> Vec<u8> {
    let size = member.header.size as usize;
    let source = |at: u64, len: usize| &tar[at as usize..][..len];
    let Some(extents) = &member.sparse else { return source(member.payload, size).to_vec() };
    let mut content = vec![0; size];
    for extent in extents {
        let len = extent.len as usize;
        content[extent.at as usize..][..len].copy_from_slice(source(extent.stored_at, len));
    }
    content
}

/// A tree with every node that an unprivileged user can make, and a file with many holes.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let deep = root.join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("f".repeat(100)), b"deep").unwrap();
    std::fs::write(root.join("ünïcode"), b"text").unwrap();
    std::fs::write(root.join("empty"), b"").unwrap();
    std::os::unix::fs::symlink("t".repeat(150), root.join("soft")).unwrap();
    std::fs::hard_link(root.join("empty"), root.join("zlink")).unwrap();
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    for at in 0..30u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[at as u8 + 1; 100], at * 100_000).unwrap();
    }
    sparse.set_len(4_000_000).unwrap();
    dir
}

fn check_tree(tar: &[u8], dir: &std::path::Path, what: &str) {
    let members = members(tar).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(members.len() >= 8, "{what}");
    for member in &members {
        let name = String::from_utf8(member.header.name.clone()).unwrap();
        let path = dir.join(&name);
        let meta = std::fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{what}: {name}: {error}"));
        assert_eq!(member.header.mtime.0, std::os::unix::fs::MetadataExt::mtime(&meta), "{what}: {name}");
        match member.header.kind {
            Kind::Regular => {
                assert!(content(tar, member) == std::fs::read(&path).unwrap(), "{what}: {name}");
            }
            Kind::Symlink => assert_eq!(member.header.link_name, "t".repeat(150).into_bytes(), "{what}"),
            Kind::Directory => assert!(meta.is_dir(), "{what}"),
            _ => {}
        }
    }
}

#[test]
fn reads_what_gnu_tar_writes() {
    let dir = tree();
    for arguments in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ] {
        let output =
            Command::new("tar").args(arguments).args(["-cf", "-", "-C"]).arg(dir.path()).arg(".").output();
        let Ok(output) = output else { return println!("skipped: no tar program") };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        check_tree(&output.stdout, dir.path(), &arguments.join(" "));
        let sparse = members(&output.stdout).unwrap().iter().filter(|member| member.sparse.is_some()).count();
        assert_eq!(sparse, usize::from(arguments.contains(&"--sparse")), "{arguments:?}");
    }
}

#[test]
fn reads_what_python_writes() {
    let dir = tree();
    for format in ["USTAR", "GNU", "PAX"] {
        let script = format!(
            "import sys, tarfile\ndef small(i): return i if {format:?} != 'USTAR' or (len(i.name) < 200 and len(i.linkname) < 100) else None\n\
             t = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.{format}_FORMAT)\n\
             t.add(sys.argv[1], '.', filter=small)\nt.add(sys.argv[1] + '/empty', './empty')\n\
             t.add(sys.argv[1] + '/sparse', './sparse')\nt.add(sys.argv[1] + '/sparse', './sparse')\n\
             t.add(sys.argv[1] + '/sparse', './sparse')\nt.close()"
        );
        let output = Command::new("python3").args(["-c", &script]).arg(dir.path()).output();
        let Ok(output) = output else { return println!("skipped: no python3 program") };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        check_tree(&output.stdout, dir.path(), format);
    }
}

#[test]
fn reads_global_headers_without_applying_them() {
    let mut tar = header_blocks(&Header::regular("global", 0));
    tar.clear();
    let mut builder = ::tar::Builder::new(&mut tar);
    builder.append_pax_extensions([("comment", b"x".as_slice()), ("path", b"elsewhere")]).unwrap();
    std::mem::forget(builder);
    tar[156] = b'g';
    let sum: u32 = tar[..512]
        .iter()
        .enumerate()
        .map(|(at, &byte)| u32::from(if (148..156).contains(&at) { 32 } else { byte }))
        .sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.extend_from_slice(&header_blocks(&Header::regular("file", 0)));
    let mut walker = Walker::new(tar.as_slice());
    assert!(matches!(walker.next_item(), Ok(Some(Item::Global { start: 0, end: 1024 }))));
    match walker.next_item() {
        Ok(Some(Item::Member(member))) => assert_eq!(member.header.name, b"file"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(walker.next_item(), Ok(None)));
}

#[test]
fn refuses_broken_archives() {
    let whole = [header_blocks(&Header::regular("a", 700)), vec![1; 1024]].concat();
    assert_eq!(members(&whole).unwrap().len(), 1);
    assert_eq!(members(&whole[..512 + 700]).unwrap().len(), 1, "padding may be missing at the end");
    assert!(matches!(members(&whole[..512 + 699]), Err(TarError::Truncated { .. })));
    assert!(matches!(members(&whole[..100]), Err(TarError::Truncated { .. })));
    let mut broken = whole.clone();
    broken[0] = b'b';
    assert!(matches!(members(&broken), Err(TarError::Invalid { what: "its checksum does not match", .. })));
    let zero_between = [whole.clone(), vec![0; 512], whole.clone()].concat();
    assert!(members(&zero_between).is_err());
    let after_the_end = [whole.clone(), vec![0; 1024], whole].concat();
    assert_eq!(members(&after_the_end).unwrap().len(), 1);
}

#[test]
fn numbers_in_both_forms() {
    use super::field::number;
    for (field, value) in [
        (b"0000644\0".as_slice(), Ok(0o644)),
        (b"   644 \0", Ok(0o644)),
        (b"\0\0\0\0\0\0\0\0", Ok(0)),
        (b"        ", Ok(0)),
        (b"12345678", Err(())),
        (b"-0000001", Err(())),
        (b"\x80\0\0\0\0\0\x01\0", Ok(256)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Ok(-2)),
        (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Err(())),
    ] {
        assert_eq!(number(field).map_err(|_| ()), value, "{field:?}");
    }
}

fn any_header() -> impl Strategy<Value = Header> {
    let name = "[a-zé/]{1,300}".prop_map(String::into_bytes);
    let time = (-10_000_000_000i64..100_000_000_000, prop_oneof![Just(0), 0u32..1_000_000_000]);
    let xattrs = proptest::collection::btree_map(
        "[a-z.]{1,20}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 1..200),
        0..3,
    );
    (
        name,
        "[a-zé/]{1,300}",
        0u64..0o10000,
        any::<u32>(),
        any::<u32>(),
        "[a-zé]{0,40}",
        0u64..1 << 40,
        time,
        xattrs,
    )
        .prop_map(|(name, link, mode, uid, gid, user, size, mtime, xattrs)| Header {
            name,
            link_name: link.into_bytes(),
            mode,
            uid: uid.into(),
            gid: gid.into(),
            user_name: user.into_bytes(),
            size,
            mtime,
            xattrs,
            ..Header::regular("", 0)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn made_headers_say_what_they_were_made_of(header in any_header()) {
        let blocks = header_blocks(&header);
        let mut walker = Walker::new(blocks.as_slice());
        let Ok(Some(Item::Member(read))) = walker.next_item() else { panic!("no member") };
        prop_assert_eq!(format!("{:?}", read.header), format!("{header:?}"));
        // The tar crate cuts records at any line feed, also at one in a value.
        if header.xattrs.values().flatten().any(|&byte| byte == b'\n') {
            return Ok(());
        }
        let mut archive = ::tar::Archive::new(blocks.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        prop_assert_eq!(entry.path_bytes().into_owned(), header.name.clone());
        prop_assert_eq!(entry.link_name_bytes().unwrap().into_owned(), header.link_name);
        prop_assert_eq!(entry.size(), header.size);
        let records: BTreeMap<_, _> = entry.pax_extensions().unwrap().into_iter().flatten().map(|record| {
            let record = record.unwrap();
            (record.key_bytes().to_vec(), record.value_bytes().to_vec())
        }).collect();
        for (name, value) in &header.xattrs {
            let key = [b"SCHILY.xattr.", name.as_slice()].concat();
            prop_assert_eq!(records.get(&key), Some(value));
        }
    }

    #[test]
    fn any_records_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = super::pax::Records::parse(&data);
        let mut all = Vec::new();
        data.as_slice().read_to_end(&mut all).unwrap();
        let _ = members(&all);
    }
}
