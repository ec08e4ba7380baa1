use super::*;
use proptest::prelude::*;

/// A footer as the Go writer makes it: header, extra field, an empty stored block, CRC and length.
fn footer(extra: &[u8]) -> Vec<u8> {
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
    footer.extend((extra.len() as u16).to_le_bytes());
    footer.extend(extra);
    footer.extend([1, 0, 0, 0xff, 0xff]);
    footer.extend([0; 8]);
    footer
}

fn estargz(content: &str) -> Vec<u8> {
    let mut extra = b"SG".to_vec();
    extra.extend((content.len() as u16).to_le_bytes());
    extra.extend(content.as_bytes());
    footer(&extra)
}

fn blob(payload: usize, footer: &[u8]) -> Vec<u8> {
    [vec![7; payload], footer.to_vec()].concat()
}

#[test]
fn finds_both_kinds() {
    let new = estargz("0000000000000064STARGZ");
    assert_eq!(new.len(), MAX_LEN);
    assert_eq!(parse(&new, 1000), Ok(Footer { kind: Kind::Estargz, toc_offset: 100, len: 51 }));

    let old = blob(60, &footer(b"0000000000000032STARGZ"));
    assert_eq!(
        parse(&old, old.len() as u64),
        Ok(Footer { kind: Kind::LegacyStargz, toc_offset: 50, len: 47 })
    );
}

#[test]
fn tells_kinds_that_cannot_be_read() {
    let external = blob(100, &estargz("STARGZEXTERNALTOC"));
    assert_eq!(parse(&external, external.len() as u64), Err(FooterError::ExternalToc));
    let zstd = blob(100, b"GnUlInUx");
    assert_eq!(parse(&zstd, zstd.len() as u64), Err(FooterError::ZstdChunked));
}

#[test]
fn refuses_what_is_not_a_footer() {
    assert_eq!(parse(&[], 0), Err(FooterError::NotFound));
    assert_eq!(parse(&[0; 60], 60), Err(FooterError::NotFound));
    assert_eq!(parse(&[0; 50], 60), Err(FooterError::TooShort { given: 50, blob_size: 60 }));
    for content in ["000000000000006gSTARGZ", "+000000000000064STARGZ", "0000000000000064stargz"] {
        assert_eq!(parse(&estargz(content), 1000), Err(FooterError::NotFound), "{content}");
    }
    let no_extra = {
        let mut bytes = estargz("0000000000000064STARGZ");
        bytes[3] = 0;
        bytes
    };
    assert_eq!(parse(&no_extra, 1000), Err(FooterError::NotFound));
}

#[test]
fn refuses_an_offset_outside_of_the_blob() {
    for (offset, blob_size) in [(0, 1000), (949, 1000), (u64::MAX, 1000), (1, 51)] {
        let tail = estargz(&format!("{offset:016x}STARGZ"));
        assert_eq!(
            parse(&tail, blob_size),
            Err(FooterError::OffsetOutside { toc_offset: offset, blob_size })
        );
    }
    assert!(parse(&estargz(&format!("{:016x}STARGZ", 948)), 1000).is_ok());
}

#[test]
fn refuses_every_cut_footer() {
    let whole = estargz("0000000000000002STARGZ");
    for len in 0..whole.len() {
        assert!(parse(&whole[..len], len as u64).is_err(), "{len}");
        assert!(parse(&whole[whole.len() - len..], len as u64).is_err(), "{len}");
    }
}

proptest! {
    #[test]
    fn offset_round_trips(offset in 1u64..1 << 62, payload in 1u64..1 << 61) {
        let tail = estargz(&format!("{offset:016x}STARGZ"));
        let found = parse(&tail, offset + payload + 51);
        prop_assert_eq!(found, Ok(Footer { kind: Kind::Estargz, toc_offset: offset, len: 51 }));
    }

    #[test]
    fn never_panics(tail: Vec<u8>, blob_size: u64) {
        let _ = parse(&tail, blob_size);
    }
}
