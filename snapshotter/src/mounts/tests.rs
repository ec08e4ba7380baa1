use super::*;

fn place<'a>(lower: &'a [PathBuf]) -> Place<'a> {
    Place { upper: Path::new("/r/snapshots/9/fs"), work: Path::new("/r/snapshots/9/work"), lower }
}

fn one(kind: Kind, lower: &[&str], overlay: OverlayOptions) -> (String, String, String) {
    let lower: Vec<PathBuf> = lower.iter().map(PathBuf::from).collect();
    let [mount] = <[Mount; 1]>::try_from(mounts(kind, place(&lower), overlay)).unwrap();
    assert_eq!(mount.target, "");
    (mount.r#type, mount.source, mount.options.join(","))
}

fn texts(texts: [&str; 3]) -> (String, String, String) {
    let [a, b, c] = texts.map(str::to_owned);
    (a, b, c)
}

#[test]
fn shapes_are_those_of_the_overlay_snapshotter() {
    let none = OverlayOptions::default();
    let both = OverlayOptions { index_off: true, userxattr: true };
    assert_eq!(one(Kind::Active, &[], none), texts(["bind", "/r/snapshots/9/fs", "rw,rbind"]));
    assert_eq!(one(Kind::View, &[], both), texts(["bind", "/r/snapshots/9/fs", "ro,rbind"]));
    assert_eq!(one(Kind::View, &["/p"], both), texts(["bind", "/p", "ro,rbind"]));
    assert_eq!(one(Kind::View, &["/q", "/p"], none), texts(["overlay", "overlay", "lowerdir=/q:/p"]));
    let active = "workdir=/r/snapshots/9/work,upperdir=/r/snapshots/9/fs,lowerdir=/q:/p,userxattr,index=off";
    assert_eq!(one(Kind::Active, &["/q", "/p"], both), texts(["overlay", "overlay", active]));
}

/// containerd mounts from the common directory of all lower layers when the options come near a page, and names them
/// relative to it (`compactLowerdirOption`): what must fit into the page are the relative names.
fn compacted_len(kind: Kind, lower: &[PathBuf]) -> usize {
    let common = |a: &str, b: &str| {
        let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
        a[..same].rfind('/').unwrap()
    };
    let paths: Vec<&str> = lower.iter().map(|path| path.to_str().unwrap()).collect();
    let prefix = paths.iter().map(|path| common(paths[0], path)).min().unwrap();
    let mounts = mounts(kind, place(lower), OverlayOptions { index_off: true, userxattr: true });
    let options = mounts[0].options.join(",").len();
    options - lower.len() * (prefix + 1)
}

const PAGE: usize = 4096;

#[test]
fn an_image_of_128_layers_fits_into_a_page_of_mount_options() {
    let root = "/var/lib/starling/snapshotter";
    let ordinary: Vec<PathBuf> =
        (0..128).map(|id| format!("{root}/snapshots/{}/fs", 100_000 + id).into()).collect();
    assert!(compacted_len(Kind::Active, &ordinary) < PAGE);
}

#[test]
fn an_image_of_120_layers_lazy_and_not_fits_into_a_page_of_mount_options() {
    let root = "/var/lib/starling/snapshotter";
    let mixed: Vec<PathBuf> = (0..120)
        .map(|id| match id % 2 {
            0 => format!("{root}/snapshots/{}/fs", 100_000 + id).into(),
            _ => format!("{root}/l/{}", 100_000 + id).into(),
        })
        .collect();
    assert!(compacted_len(Kind::Active, &mixed) < PAGE);
}
