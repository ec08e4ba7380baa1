use super::*;

/// A cache with these entries: flags, name, path, special processors.
pub(in crate::closure) fn cache(entries: &[(u32, &str, &str, u64)]) -> Vec<u8> {
    let mut strings = Vec::new();
    let base = NEW_HEADER + entries.len() * NEW_ENTRY;
    let mut bytes = NEW.to_vec();
    bytes.extend((entries.len() as u32).to_le_bytes());
    bytes.resize(NEW_HEADER, 0);
    for (flags, name, path, hwcap) in entries {
        let mut put = |text: &str| {
            let at = base + strings.len();
            strings.extend(text.bytes().chain([0]));
            at as u32
        };
        let (name, path) = (put(name), put(path));
        for number in [*flags, name, path, 0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(hwcap.to_le_bytes());
    }
    bytes.extend(strings);
    bytes
}

#[test]
fn libraries_are_found_by_name_and_those_of_other_machines_are_not() {
    let bytes = cache(&[
        (0x303, "libz.so.1", "/lib/special/libz.so.1", 1 << 62),
        (0x303, "libz.so.1", "/lib/libz.so.1", 0),
        (0x003, "libz.so.1", "/lib32/libz.so.1", 0),
        (0xa03, "libarm.so", "/lib/libarm.so", 0),
        (0x301, "libc5.so", "/lib/libc5.so", 0),
        (0x303, "odd.so", "relative", 0),
    ]);
    let mut old = OLD.to_vec();
    old.extend(1u32.to_le_bytes());
    old.resize((OLD_HEADER + OLD_ENTRY).next_multiple_of(8), 7);
    old.extend(&bytes);
    for bytes in [bytes, old] {
        let cache = Cache::parse(&bytes).unwrap();
        assert_eq!(cache.places("libz.so.1"), ["/lib/libz.so.1", "/lib/special/libz.so.1"]);
        assert_eq!(cache.places("libarm.so"), ["/lib/libarm.so"]);
        for absent in ["libc5.so", "odd.so", "", "unknown"] {
            assert!(cache.places(absent).is_empty(), "{absent}");
        }
    }
}

#[test]
fn this_hosts_cache_names_its_c_library() {
    let Ok(bytes) = std::fs::read("/etc/ld.so.cache") else {
        println!("skipped: this host has no cache of libraries");
        return;
    };
    let cache = Cache::parse(&bytes).unwrap();
    let places = cache.places("libc.so.6");
    assert!(places.iter().any(|path| std::path::Path::new(path).exists()), "{places:?}");
}

#[test]
fn what_is_cut_or_spoilt_is_survived() {
    let bytes = cache(&[(0x303, "a.so", "/a.so", 0), (0x303, "b.so", "/b.so", 0)]);
    for len in 0..bytes.len() {
        let _ = Cache::parse(&bytes[..len]);
    }
    for at in 0..bytes.len() {
        for byte in [0, 0x7f, 0xff] {
            let mut spoilt = bytes.clone();
            spoilt[at] = byte;
            let _ = Cache::parse(&spoilt);
        }
    }
    let mut endless = OLD.to_vec();
    endless.extend(u32::MAX.to_le_bytes());
    assert_eq!(Cache::parse(&endless), None);
    assert_eq!(Cache::parse(b""), None);
}
