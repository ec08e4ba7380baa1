use super::*;

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn document() -> Document {
    let access = |path: &str, at| Access { layer: 0, path: path.to_owned(), offset: 0, length: 10, at };
    Document {
        version: 1,
        manifest: digest("manifest"),
        layers: vec![Part { blob: digest("blob"), toc: digest("toc") }],
        accesses: vec![access("bin/sh", 0), access("lib/c", 1), access("bin/sh", 5)],
    }
}

#[test]
fn reads_what_it_wrote() {
    let bytes = serde_json::to_vec(&document()).unwrap();
    assert_eq!(Document::parse(&bytes).unwrap(), document());
    assert_eq!(document().files(), ["bin/sh", "lib/c"]);
}

#[test]
fn hostile_documents_are_refused() {
    let with = |change: fn(&mut Document)| {
        let mut document = document();
        change(&mut document);
        Document::parse(&serde_json::to_vec(&document).unwrap()).unwrap_err().to_string()
    };
    assert!(with(|d| d.version = 2).contains("version 2"));
    assert!(with(|d| d.accesses[1].layer = 1).contains("speaks of layer 1"));
    assert!(with(|d| d.layers = vec![d.layers[0]; 2000]).contains("too many"));
    assert!(Document::parse(&vec![b' '; Document::MOST_BYTES + 1]).is_err());
    for text in ["", "{}", "[", "null", &"[".repeat(100_000)] {
        assert!(Document::parse(text.as_bytes()).is_err());
    }
}

#[test]
fn a_document_belongs_to_one_image() {
    let layers = [(digest("blob"), Some(digest("toc"))), (digest("other"), None)];
    assert!(document().check(digest("manifest"), &layers).is_ok());
    assert!(document().check(digest("manifest 2"), &layers).is_err());
    assert!(document().check(digest("manifest"), &layers[1..]).is_err());
    let other_toc = [(digest("blob"), Some(digest("another")))];
    assert!(document().check(digest("manifest"), &other_toc).is_err());
}
