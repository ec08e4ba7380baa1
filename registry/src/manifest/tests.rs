use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn index(platforms: &[Option<&str>]) -> Index {
    let manifests = platforms.iter().map(|platform| {
        let platform = platform.map(|text| Platform::parse(text).unwrap());
        serde_json::json!({ "mediaType": media_type::OCI_MANIFEST, "digest": DIGEST, "size": 7, "platform": platform })
    });
    let text =
        serde_json::json!({ "schemaVersion": 2, "manifests": manifests.collect::<Vec<_>>() }).to_string();
    match Parsed::new(text.as_bytes(), "").unwrap() {
        Parsed::Index(index) => index,
        other => panic!("{other:?}"),
    }
}

fn selected(platforms: &[Option<&str>], wanted: &str) -> Result<Option<String>, String> {
    let index = index(platforms);
    let wanted = Platform::parse(wanted).unwrap();
    let found = index.select(&wanted).map_err(|error| error.to_string())?;
    Ok(found.platform.as_ref().map(Platform::to_string))
}

#[test]
fn selects_by_platform() {
    let all = [Some("linux/arm/v6"), Some("linux/arm/v7"), Some("linux/amd64"), Some("unknown/unknown")];
    assert_eq!(selected(&all, "linux/amd64"), Ok(Some("linux/amd64".into())));
    assert_eq!(selected(&all, "linux/arm/v7"), Ok(Some("linux/arm/v7".into())));
    assert_eq!(selected(&all, "linux/arm"), Ok(Some("linux/arm/v6".into())));
    assert_eq!(selected(&[Some("linux/arm64/v8")], "linux/arm64"), Ok(Some("linux/arm64/v8".into())));
    assert_eq!(selected(&[Some("linux/arm64")], "linux/arm64/v8"), Ok(Some("linux/arm64".into())));
    assert_eq!(selected(&[None], "linux/amd64"), Ok(None));
    let error = selected(&all, "linux/riscv64").unwrap_err();
    assert!(error.contains("linux/riscv64") && error.contains("linux/arm/v6"), "{error}");
}

#[test]
fn platform_texts_are_checked() {
    for text in ["", "linux", "/amd64", "linux/", "linux/arm/v7/x"] {
        assert_eq!(Platform::parse(text), None, "{text}");
    }
}

#[test]
fn unknown_fields_are_kept() {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"x/y","config":{{"mediaType":"c","digest":"{DIGEST}","size":1,"data":"e30="}},
        "layers":[{{"mediaType":"l","digest":"{DIGEST}","size":2,"urls":["u"],"annotations":{{"a":"b"}}}}],"subject":{{"k":1}}}}"#,
        media_type::OCI_MANIFEST
    );
    let Parsed::Manifest(manifest) = Parsed::new(text.as_bytes(), "application/json").unwrap() else {
        panic!("a manifest is one")
    };
    assert_eq!(manifest.layers[0].annotations["a"], "b");
    let again: Value = serde_json::from_str(&serde_json::to_string(&manifest).unwrap()).unwrap();
    assert_eq!(again, serde_json::from_str::<Value>(&text).unwrap());
}

#[test]
fn other_documents_are_refused() {
    let refused = |text: &str, media_type: &str| Parsed::new(text.as_bytes(), media_type).unwrap_err();
    assert!(matches!(refused("{}", ""), ManifestError::UnknownType(_)));
    assert!(matches!(refused("not json", ""), ManifestError::UnknownType(_)));
    assert!(matches!(refused("{}", media_type::OCI_MANIFEST), ManifestError::Malformed { .. }));
    let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    assert!(matches!(refused("{}", schema1), ManifestError::UnknownType(_)));
    let negative = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{DIGEST}","size":-1}},"layers":[]}}"#
    );
    assert!(matches!(refused(&negative, ""), ManifestError::Malformed { .. }));
    let entry = format!(r#"{{"digest":"{DIGEST}","size":1}}"#);
    let many = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec![entry; MAX_ENTRIES + 1].join(","));
    assert!(matches!(refused(&many, ""), ManifestError::TooLong));
}
