//! Names, kinds, attributes and links: one test a rule.

use super::*;

#[test]
fn an_empty_toc_is_an_empty_root() {
    for json in [
        r#"{"version":1,"entries":[]}"#,
        r#"{"entries":null,"version":1}"#,
        r#" {"x":[{"y":[]}],"entries":[]} "#,
    ] {
        let index = build_json(json.as_bytes()).unwrap();
        assert_eq!(tree(&index), " Dir 2\n");
        assert_eq!((index.node_count(), index.chunk_count(), index.content_len()), (1, 0, 0));
        assert_eq!(index.node(NodeId::ROOT).unwrap().perm(), 0o755);
        assert_eq!(index.node(NodeId::ROOT).unwrap().parent(), NodeId::ROOT);
        assert_eq!(index.path(NodeId::ROOT).unwrap(), b"");
    }
}

#[test]
fn every_kind_with_its_attributes() {
    let with = |kind: &str, more: Value| {
        let mut entry = json!({"name": format!("./d//{kind}"), "type": kind, "mode": 0o104755, "uid": 1, "gid": 4294967294u32,
                               "modtime": "1969-12-31T23:59:59.5Z", "userName": "u", "NumLink": 0, "unknown": {"a": [1]}});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let index = build(&[
        with("dir", json!({})),
        with("reg", json!({})),
        with("symlink", json!({"linkName": "../x//y"})),
        with("char", json!({"devMajor": 4095, "devMinor": 1048575})),
        with("block", json!({"devMajor": 8, "devMinor": 300})),
        with("fifo", json!({"devMajor": 8})),
    ])
    .unwrap();
    assert_eq!(
        tree(&index),
        " Dir 3\n/d Dir 3\n/d/block Block 1 8:300\n/d/char Char 1 4095:1048575\n/d/dir Dir 2\n/d/fifo Fifo 1\n/d/reg Reg 1\n/d/symlink Symlink 1 ../x//y\n"
    );
    for name in ["dir", "reg", "symlink", "char", "block", "fifo"] {
        let node = index.node(find(&index, &format!("d/{name}"))).unwrap();
        assert_eq!(
            (node.perm(), node.uid(), node.gid(), node.mtime()),
            (0o4755, 1, 4294967294, (-1, 500_000_000)),
            "{name}"
        );
        assert_eq!(node.size(), if name == "symlink" { 7 } else { 0 });
    }
    assert_eq!(index.node(find(&index, "d/fifo")).unwrap().rdev_major(), 0);
    let wrong = index.symlink_target(find(&index, "d/reg"));
    assert!(matches!(wrong, Err(IndexError::WrongKind { wanted: Kind::Symlink, .. })));
    assert!(matches!(
        index.lookup(find(&index, "d/reg"), b"x"),
        Err(IndexError::WrongKind { wanted: Kind::Dir, .. })
    ));
}

#[test]
fn missing_directories_are_made() {
    let index = build(&[reg("a/b/c"), json!({"name": "a", "type": "dir", "mode": 0o700, "uid": 5})]).unwrap();
    assert_eq!(tree(&index), " Dir 3\n/a Dir 3\n/a/b Dir 2\n/a/b/c Reg 1\n");
    let (made, named) = (index.node(find(&index, "a/b")).unwrap(), index.node(find(&index, "a")).unwrap());
    assert_eq!((made.perm(), made.uid(), made.gid(), made.mtime()), (0o755, 0, 0, (0, 0)));
    assert_eq!((named.perm(), named.uid()), (0o700, 5));
}

#[test]
fn an_entry_for_the_root_gives_its_attributes() {
    for name in ["", "./", "/", "a/.."] {
        let index = build(&[json!({"name": name, "type": "dir", "mode": 0o1777, "gid": 3})]).unwrap();
        let root = index.node(NodeId::ROOT).unwrap();
        assert_eq!((root.perm(), root.gid()), (0o1777, 3));
    }
    assert_eq!(refusal(&[reg("./")]), r#"TOC entry "./": is the root but not a directory"#);
}

#[test]
fn names_do_not_leave_the_root() {
    let index = build(&[reg("../../etc/passwd"), reg("/a/../../b")]).unwrap();
    assert_eq!(tree(&index), " Dir 3\n/b Reg 1\n/etc Dir 2\n/etc/passwd Reg 1\n");
}

#[test]
fn entries_are_sorted_and_positions_go_on() {
    let names = ["b", "a", "a.b", "aa", "Z", "ü", "a-"];
    let index = build(&names.map(reg)).unwrap();
    let all: Vec<_> = index.entries(NodeId::ROOT, 0).unwrap().map(Result::unwrap).collect();
    let mut sorted = names;
    sorted.sort_by_key(|name| name.as_bytes());
    assert!(all.iter().map(|entry| entry.name).eq(sorted.iter().map(|name| name.as_bytes())));
    for (seen, entry) in all.iter().enumerate() {
        let rest: Vec<_> = index.entries(NodeId::ROOT, entry.position).unwrap().map(Result::unwrap).collect();
        assert_eq!(rest, all[seen + 1..]);
    }
    assert_eq!(index.entries(NodeId::ROOT, u64::MAX).unwrap().count(), 0);
}

#[test]
fn the_later_of_two_entries_wins() {
    let link = json!({"name": "x", "type": "symlink", "linkName": "t"});
    for (entries, expected) in [
        (vec![reg("x"), link.clone()], " Dir 2\n/x Symlink 1 t\n"),
        (vec![link.clone(), reg("x")], " Dir 2\n/x Reg 1\n"),
        (vec![reg("x"), dir("x"), reg("x/y")], " Dir 3\n/x Dir 2\n/x/y Reg 1\n"),
        // A directory that is replaced takes along what was in it, also if it comes back.
        (vec![reg("x/y/z"), reg("x")], " Dir 2\n/x Reg 1\n"),
        (vec![reg("x/y/z"), reg("x"), dir("x"), reg("x/new")], " Dir 3\n/x Dir 2\n/x/new Reg 1\n"),
        (
            vec![reg("x/y/z"), reg("x/y/a"), reg("x/y"), dir("x/y"), reg("x/y/b")],
            " Dir 3\n/x Dir 3\n/x/y Dir 2\n/x/y/b Reg 1\n",
        ),
        // One that is named again keeps it.
        (vec![dir("x"), reg("x/y"), dir("x/")], " Dir 3\n/x Dir 2\n/x/y Reg 1\n"),
        (vec![json!({"name": "x/.wh..wh..opq", "type": "reg"}), dir("x")], " Dir 3\n/x Dir 2 opaque\n"),
    ] {
        assert_eq!(tree(&build(&entries).unwrap()), expected, "{entries:?}");
    }
    let index =
        build(&[json!({"name": "x", "type": "dir", "mode": 0o700, "xattrs": {"user.a": "YQ=="}}), dir("x")])
            .unwrap();
    let x = find(&index, "x");
    assert_eq!((index.node(x).unwrap().perm(), xattrs(&index, x).len()), (0o755, 0));
}

#[test]
fn nothing_can_be_below_what_is_not_a_directory() {
    for first in [
        reg("x"),
        json!({"name": "x", "type": "symlink", "linkName": "d"}),
        json!({"name": "x", "type": "hardlink", "linkName": "later"}),
    ] {
        assert_eq!(
            refusal(&[dir("d"), first, reg("x/y"), reg("later")]),
            r#"TOC entry "x/y": is below something that is not a directory"#
        );
    }
}

#[test]
fn hard_links_are_names_of_one_node() {
    let link = |name: &str, target: &str| json!({"name": name, "type": "hardlink", "linkName": target, "mode": 0o777});
    let index = build(&[
        link("early", "./a/file"),
        json!({"name": "a/file", "type": "reg", "mode": 0o600}),
        link("b/one", "/a/file"),
        link("c", "b/../b/one"),
        link("d", "e"),
        link("e", "early"),
        json!({"name": "s", "type": "symlink", "linkName": "t"}),
        link("s2", "s"),
    ])
    .unwrap();
    assert_eq!(
        tree(&index),
        " Dir 4\n/a Dir 2\n/a/file Reg 6\n/b Dir 2\n/b/one Reg 6\n/c Reg 6\n/d Reg 6\n/e Reg 6\n/early Reg 6\n/s Symlink 2 t\n/s2 Symlink 2 t\n"
    );
    let file = find(&index, "a/file");
    for name in ["b/one", "c", "d", "e", "early"] {
        assert_eq!(find(&index, name), file, "{name}");
    }
    assert_eq!(index.node(file).unwrap().perm(), 0o600);
    assert_eq!(index.path(file).unwrap(), b"c");
    assert_eq!(index.node_count(), 5);
}

#[test]
fn a_hard_link_keeps_a_node_whose_first_name_was_replaced() {
    let entries = [
        json!({"name": "a", "type": "reg", "mode": 0o600}),
        json!({"name": "l", "type": "hardlink", "linkName": "a"}),
        json!({"name": "a", "type": "reg", "mode": 0o644}),
    ];
    let index = build(&entries).unwrap();
    assert_eq!(index.node(find(&index, "l")).unwrap().perm(), 0o600);
    assert_eq!(index.node(find(&index, "a")).unwrap().perm(), 0o644);
    assert_eq!(tree(&index), " Dir 2\n/a Reg 1\n/l Reg 1\n");
}

#[test]
fn hard_links_to_nowhere_are_refused_by_name() {
    let link = |name: &str, target: &str| json!({"name": name, "type": "hardlink", "linkName": target});
    for (entries, expected) in [
        (vec![link("a", "b")], r#"TOC entry "a": is a hard link to "b", which is not in the layer"#),
        (
            vec![link("x/a", "x/b"), link("x/b", "x/a")],
            r#"TOC entry "x/a": is a hard link that leads back to itself"#,
        ),
        (
            vec![link("a", "b"), link("b", "c"), link("c", "d"), link("d", "b")],
            r#"TOC entry "a": is a hard link that leads back to itself"#,
        ),
        (vec![link("a", "./a")], r#"TOC entry "a": is a hard link that leads back to itself"#),
        (vec![dir("d"), link("a", "d")], r#"TOC entry "a": is a hard link to a directory"#),
        (vec![link("a", "d"), dir("d")], r#"TOC entry "a": is a hard link to a directory"#),
        (vec![link("a", "/")], r#"TOC entry "a": is a hard link to a directory"#),
        (
            vec![reg(".wh.x"), link("a", "x")],
            r#"TOC entry "a": is a hard link to "x", which is not in the layer"#,
        ),
        (
            vec![reg(".wh.x"), link("a", ".wh.x")],
            r#"TOC entry "a": is a hard link to ".wh.x", which is not in the layer"#,
        ),
        (
            vec![reg("f"), link("a", "f/x")],
            r#"TOC entry "a": is a hard link to "f/x", which is not in the layer"#,
        ),
    ] {
        assert_eq!(refusal(&entries), expected);
    }
    // One that was replaced does not matter.
    assert!(build(&[link("a", "nowhere"), reg("a")]).is_ok());
    assert!(build(&[link("d/a", "nowhere"), reg("d")]).is_ok());
}

#[test]
fn whiteouts_become_what_overlayfs_knows() {
    let index = build(&[
        reg("a/.wh.gone"),
        reg("a/.wh.there"),
        reg("a/there"),
        reg("b"),
        reg(".wh.b"),
        reg(".wh.c"),
        reg("c/file"),
        json!({"name": "a/o/.wh..wh..opq", "type": "reg", "mode": 0o644}),
        reg(".wh..wh.plnk/x"),
        reg(".wh..wh.aufs"),
        reg(".wh."),
        reg(".wh..."),
        reg(".wh.x/y"),
        json!({"name": "z/.wh.w", "type": "char", "uid": 9, "mode": 0o666}),
    ])
    .unwrap();
    assert_eq!(
        tree(&index),
        " Dir 5\n/a Dir 3\n/a/gone Char 1 0:0\n/a/o Dir 2 opaque\n/a/there Reg 1\n/b Reg 1\n/c Dir 2\n/c/file Reg 1\n/z Dir 2\n/z/w Char 1 0:0\n"
    );
    let whiteout = index.node(find(&index, "z/w")).unwrap();
    assert_eq!((whiteout.perm(), whiteout.uid(), whiteout.size()), (0, 0, 0));
}

#[test]
fn landmarks_and_the_toc_are_hidden_in_the_root_only() {
    let names = [".prefetch.landmark", ".no.prefetch.landmark", "stargz.index.json"];
    for name in names {
        let landmark = json!({"name": name, "type": "reg", "size": 1, "offset": 77, "digest": "whatever"});
        let index =
            build(&[reg("a"), landmark, reg(&format!("d/{name}")), reg(&format!(".wh.{name}"))]).unwrap();
        assert_eq!(tree(&index), format!(" Dir 3\n/a Reg 1\n/d Dir 2\n/d/{name} Reg 1\n"));
        assert_eq!(index.prefetch_end(), (name == names[0]).then_some(77));
        assert_eq!(tree(&build(&[reg(&format!("{name}/x"))]).unwrap()), " Dir 2\n");
    }
    let beyond = json!({"name": names[0], "type": "reg", "size": 1, "offset": TOC_OFFSET});
    assert_eq!(build(&[beyond]).unwrap().prefetch_end(), None);
}

#[test]
fn extended_attributes_are_kept_but_for_the_hosts_own() {
    let label = json!({"security.selinux": "bGFiZWwA", "user.empty": null});
    let index = build(&[
        json!({"name": "f", "type": "reg", "xattrs": {
            "user.b": "AAH/", "user.a": "", "security.capability": "AQAAAg==", "trusted.overlay.opaque": "eQ==",
            "trusted.x": "eQ==", "user.overlay.opaque": "eQ==", "user.overlayed": "eQ==",
        }}),
        json!({"name": "d", "type": "dir", "xattrs": label}),
        json!({"name": "e", "type": "symlink", "linkName": "x", "xattrs": label}),
        json!({"name": "n", "type": "fifo", "xattrs": null}),
        json!({"name": "t", "type": "fifo", "xattrs": {"trusted.y": "eQ=="}}),
    ])
    .unwrap();
    let names: Vec<_> = xattrs(&index, find(&index, "f")).into_iter().collect();
    let expected: [(&str, &[u8]); 4] = [
        ("security.capability", &[1, 0, 0, 2]),
        ("user.a", b""),
        ("user.b", &[0, 1, 255]),
        ("user.overlayed", b"y"),
    ];
    assert_eq!(names, expected.map(|(name, value)| (name.to_owned(), value.to_vec())));
    assert_eq!(index.xattr(find(&index, "f"), b"trusted.x"), Ok(None));
    for name in ["d", "e"] {
        assert_eq!(xattrs(&index, find(&index, name)).len(), 2);
    }
    for name in ["n", "t"] {
        assert!(xattrs(&index, find(&index, name)).is_empty());
    }
    assert!(!index.has_posix_acl());
    for name in ["system.posix_acl_access", "system.posix_acl_default"] {
        let with_acl = json!({"name": "f", "type": "dir", "xattrs": {name: "AgAAAA=="}});
        assert!(build(std::slice::from_ref(&with_acl)).unwrap().has_posix_acl());
        // The flag is about what is there.
        assert!(!build(&[with_acl, reg("f")]).unwrap().has_posix_acl());
    }
}

#[test]
fn what_linux_cannot_have_is_refused_by_name() {
    let with = |more: Value| {
        let mut entry = json!({"name": "d/e", "type": "char"});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        [entry]
    };
    let long = "n".repeat(256);
    for (entries, expected) in [
        (with(json!({"uid": -1})), "its user number is -1"),
        (with(json!({"gid": 4294967295u32})), "its group number is 4294967295, the limit is 4294967294"),
        (with(json!({"devMajor": 4096})), "its major device number is 4096, the limit is 4095"),
        (
            with(json!({"devMinor": i64::MAX})),
            "its minor device number is 9223372036854775807, the limit is 1048575",
        ),
        (with(json!({"modtime": "yesterday"})), "has a modification time that is not RFC 3339"),
        (with(json!({"type": "door"})), "is of unknown type \"door\""),
        (with(json!({"type": ""})), "is of unknown type \"\""),
        (with(json!({"type": "symlink"})), "is a symbolic link to nothing"),
        (
            with(json!({"type": "symlink", "linkName": "t".repeat(4096)})),
            "the length of its target is 4096, the limit is 4095",
        ),
        (
            with(json!({"type": "symlink", "linkName": "a\u{fffd}"})),
            "has a name that was not UTF-8, which a TOC cannot carry",
        ),
        (with(json!({"type": "hardlink", "linkName": "a\0"})), "has a name with a NUL byte"),
        (with(json!({"xattrs": {"user.a": "?"}})), "has an extended attribute that is not base64"),
        (with(json!({"xattrs": {"": ""}})), "has an extended attribute without a name"),
        (with(json!({"xattrs": {&long: ""}})), "the length of an attribute's name is 256, the limit is 255"),
        (
            with(json!({"xattrs": {"user.a": "A".repeat(4 * 21846)}})),
            "the length of an attribute's value is 65538, the limit is 65536",
        ),
    ] {
        assert_eq!(refusal(&entries), format!("TOC entry \"d/e\": {expected}"));
    }
    assert!(
        refusal(&[reg("bad\u{fffd}")]).ends_with("has a name that was not UTF-8, which a TOC cannot carry")
    );
    assert!(refusal(&[reg(&long)]).ends_with("the length of a name in its path is 256, the limit is 255"));
    let many: serde_json::Map<_, _> = (0..4400).map(|i| (format!("user.att{i:06}"), json!(""))).collect();
    assert!(refusal(&with(json!({ "xattrs": many }))).contains("the length of its list of attributes"));
}

#[test]
fn each_reason_can_be_told() {
    let reason = |entries: &[Value]| build(entries).unwrap_err().reason();
    assert_eq!(reason(&[reg("\u{fffd}")]), Reason::NotUtf8);
    assert_eq!(reason(&[json!({"name": "f", "type": "reg", "size": 1, "offset": 5})]), Reason::NotVerifiable);
    assert_eq!(reason(&[reg(&"n".repeat(300))]), Reason::OverLimit);
    assert_eq!(reason(&[json!({"name": "f", "type": "reg", "size": -1})]), Reason::Damaged);
    let words =
        [Reason::Unreadable, Reason::Damaged, Reason::NotUtf8, Reason::NotVerifiable, Reason::OverLimit]
            .map(|r| r.to_string());
    assert_eq!(words, ["toc-unreadable", "toc-damaged", "names-not-utf8", "not-verifiable", "over-limit"]);
}
