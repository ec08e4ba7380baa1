use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;

struct Object {
    name: &'static str,
    labels: BTreeMap<String, String>,
}

impl Fields for Object {
    fn field(&self, path: &[String]) -> Option<&str> {
        match path.first()?.as_str() {
            "name" => Some(self.name),
            "labels" => self.labels.get(&path[1..].join(".")).map(String::as_str),
            _ => None,
        }
    }
}

fn object(name: &'static str, labels: &[(&str, &str)]) -> Object {
    Object { name, labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect() }
}

/// Which of some objects a filter selects, by number.
fn select(filter: &str) -> Vec<usize> {
    let objects = [
        object("foo", &[("foo", "true")]),
        object("bar", &[]),
        object("foo", &[("foo", "present"), ("more complex label", "present")]),
        object("bar", &[("bar", "true")]),
        object("fooer", &[(r#"with \ and ""#, "present")]),
        object("fooer", &[(r#"with \ and ".post"#, "present")]),
        object("", &[("other", "too complex, yo")]),
        object("compound", &[("foo", "omg_asdf.asdf-qwer")]),
    ];
    let filters = Filters::parse(&[filter]).unwrap_or_else(|error| panic!("{error}"));
    (0..objects.len()).filter(|&i| filters.select(&objects[i])).collect()
}

#[test]
fn selects_what_containerd_selects() {
    let all: Vec<usize> = (0..8).collect();
    let cases: &[(&str, &[usize])] = &[
        ("", &all),
        ("name", &all),
        ("labels.foo", &[0, 2, 7]),
        ("labels.foo,name", &[0, 2, 7]),
        ("labels.foo==true", &[0]),
        ("labels.foo==omg_asdf.asdf-qwer", &[7]),
        ("name==bar", &[1, 3]),
        ("name!=bar", &[0, 2, 4, 5, 6, 7]),
        ("name==bar,labels.bar", &[3]),
        ("name==bar,labels.bar==wrong", &[]),
        (r#"name!="""#, &[0, 1, 2, 3, 4, 5, 7]),
        (r#"labels.other=="too complex, yo""#, &[6]),
        // An absent field is the empty text to "!=" and "~=".
        ("labels.foo!=true", &[1, 2, 3, 4, 5, 6, 7]),
        ("labels.foo~=^$", &[1, 3, 4, 5, 6]),
        ("labels.foo~=^(true|p.*)$,name!=bar", &[0, 2]),
        ("labels.foo~=/[abc]{0,1}\"\\//", &[]),
        ("labels.foo~=|^tr|", &[0]),
        // An expression that does not compile matches nothing.
        ("name~=(", &[]),
        (r#"name==foo,labels."more complex label""#, &[2]),
        (r#"labels."with \\ and \""==present"#, &[4]),
        (r#"labels."with \\ and \"".post==present"#, &[5]),
        (" name == bar", &[1, 3]),
        (r#"name=="\x62\u0061\162""#, &[1, 3]),
        ("name.ignored==bar", &[1, 3]),
        ("nothing", &[]),
    ];
    for (filter, expected) in cases {
        assert_eq!(select(filter), *expected, "{filter}");
    }
}

#[test]
fn of_several_filters_one_must_match_and_none_matches_all() {
    let (foo, bar) = (object("foo", &[]), object("bar", &[]));
    let either = Filters::parse(&["name==x", "name==bar"]).unwrap();
    assert!(!either.select(&foo) && either.select(&bar));
    assert!(Filters::parse::<&str>(&[]).unwrap().select(&foo));
}

#[test]
fn refuses_what_containerd_refuses() {
    let cases = [
        ("labels.|foo|==omg", "invalid quote encountered"),
        ("name==|foo|", "invalid quote encountered"),
        (r#"labels.?"a"==b"#, "expected field or quoted"),
        ("name==foo,", "expected field or quoted"),
        (",name", "expected field or quoted"),
        ("labels.", "expected field or quoted"),
        ("image~=,id?=?fbaq", "expected value or quoted"),
        ("labels.ns/key==value", "quoted literal not terminated"),
        ("labels.key==/value", "quoted literal not terminated"),
        ("labels.\"a\nb\"==value", "quoted literal not terminated"),
        (r#"labels."\g""#, "illegal escape sequence"),
        (r#"labels."\xaz""#, "illegal numeric escape sequence"),
        (r#"labels."\400""#, "quote syntax error"),
        (r#"labels."\U00110000""#, "quote syntax error"),
        (r#"labels."\xff""#, "quoted text is not UTF-8"),
        ("foo\0bar", "unexpected null"),
        ("foo = bar", "unsupported operator"),
        ("foo===bar", "unsupported operator"),
        ("foo bar", "expected an operator"),
        ("name==value value", "unexpected input"),
        ("name==.x", "expected value or quoted"),
        ("name\u{fffd}", "rune error"),
    ];
    for (filter, reason) in cases {
        let error = Filters::parse(&[filter]).unwrap_err().to_string();
        assert!(error.contains(reason), "{filter:?}: {error}");
    }
}

/// As containerd writes it after an AlreadyExists: the target as it is, the parent quoted.
#[test]
fn understands_the_filter_of_the_remote_protocol() {
    let target = format!("sha256:{}", "ab".repeat(32));
    let label = [("containerd.io/snapshot.ref", target.as_str())];
    let filter = format!(r#"labels."containerd.io/snapshot.ref"=={target},name=="k8s.io/5/sha256:ab""#);
    let filters = Filters::parse(&[filter]).unwrap();
    assert!(filters.select(&object("k8s.io/5/sha256:ab", &label)));
    assert!(!filters.select(&object("default/5/sha256:ab", &label)));
    assert!(!filters.select(&object("k8s.io/5/sha256:ab", &[])));
}

/// As Go's `%q` does for what has no control characters.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

proptest! {
    #[test]
    fn any_text_is_an_answer_and_never_a_panic(filter in any::<String>()) {
        let _ = Filters::parse(&[filter]);
    }

    #[test]
    fn text_in_the_alphabet_of_filters_too(pieces in vec(prop_oneof![
        Just("=="), Just("!="), Just("~="), Just(","), Just("."), Just("\""), Just("\\"), Just("/"), Just("|"),
        Just(" "), Just("labels"), Just("x"), Just("\\u00"), Just("é"), Just("\n"),
    ], 0..12)) {
        if let Ok(filters) = Filters::parse(&[pieces.concat()]) {
            filters.select(&object("x", &[("x", "x")]));
        }
    }

    #[test]
    fn any_quoted_label_and_value_is_found(key in "[^\\p{C}\u{fffd}]{1,9}", value in "[^\\p{C}\u{fffd}]{1,9}", other in "[a-z]{0,3}") {
        let labelled = object("n", &[(&key, &value)]);
        let filter = format!("labels.{}=={},name==n", quote(&key), quote(&value));
        prop_assert!(Filters::parse(&[&filter]).unwrap().select(&labelled), "{}", filter);
        let filter = format!("labels.{}=={}", quote(&key), quote(&other));
        prop_assert_eq!(Filters::parse(&[&filter]).unwrap().select(&labelled), other == value);
    }
}
