use super::*;

/// This test's own program.
fn program() -> Vec<u8> {
    std::fs::read("/proc/self/exe").unwrap()
}

fn part(file: &[u8], range: &Range<u64>) -> Vec<u8> {
    file[range.start as usize..range.end as usize].to_vec()
}

#[test]
fn reads_a_program_as_the_loader_does() {
    let file = program();
    let head = Head::parse(&file[..4096]).unwrap();
    let interpreter = text(&part(&file, head.interpreter.as_ref().unwrap())).unwrap();
    assert!(interpreter.starts_with('/') && interpreter.contains("ld-"), "{interpreter}");
    let dynamic = Dynamic::parse(&part(&file, head.dynamic.as_ref().unwrap()), &head).unwrap();
    let strings = part(&file, dynamic.strings.as_ref().unwrap());
    let needed = dynamic.needed(&strings);
    assert!(needed.iter().any(|name| name.starts_with("libc.")), "{needed:?}");
}

#[test]
fn what_is_cut_or_spoilt_is_survived() {
    let file = program();
    let head = Head::parse(&file[..4096]).unwrap();
    let section = part(&file, head.dynamic.as_ref().unwrap());
    for len in 0..1024 {
        let _ = Head::parse(&file[..len]);
        let _ = Dynamic::parse(&section[..len.min(section.len())], &head);
    }
    for at in 0..1024 {
        for byte in [0, 0x7f, 0xff] {
            let mut spoilt = file[..4096].to_vec();
            spoilt[at] = byte;
            if let Some(head) = Head::parse(&spoilt) {
                let dynamic = Dynamic::parse(&section, &head).unwrap();
                assert!(dynamic.needed(&file[..100]).len() <= MOST_NEEDED);
            }
        }
    }
    assert_eq!(Head::parse(b"#!/bin/sh"), None);
}

#[test]
fn a_files_own_directories_know_where_it_is() {
    let dynamic = Dynamic { strings: None, needed: vec![1, 99], paths: vec![6] };
    let strings = b"\0lib.\0$ORIGIN/../lib:relative:/opt/${ORIGIN}\0";
    assert_eq!(dynamic.needed(strings), ["lib."]);
    assert_eq!(dynamic.directories(strings, "/usr/bin"), ["/usr/bin/../lib", "/opt//usr/bin"]);
}
