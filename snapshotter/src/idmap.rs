//! The labels that say which ids a container's root is mapped to (`containerd.io/snapshot/uidmapping` and `gidmapping`,
//! `container:host:length[,...]`). A snapshot with them belongs to the mapped root, as containerd's overlay snapshotter
//! has it.

use crate::{
    error::SnapshotError,
    lazy::{Labels, Owner},
    name::Name,
};

const UID_LABEL: &str = "containerd.io/snapshot/uidmapping";
const GID_LABEL: &str = "containerd.io/snapshot/gidmapping";

/// The host's ids of the container's root, if the labels of snapshot `name` map any.
///
/// # Errors
/// A mapping cannot be read, or does not map root.
pub fn root_of(name: &Name, labels: &Labels) -> Result<Option<Owner>, SnapshotError> {
    if !labels.contains_key(UID_LABEL) && !labels.contains_key(GID_LABEL) {
        return Ok(None);
    }
    let host = |label: &'static str| {
        let mapping = labels.get(label).map_or("", String::as_str);
        host_root(mapping).map_err(|reason| SnapshotError::BadLabel { label, name: name.clone(), reason })
    };
    Ok(Some(Owner { uid: host(UID_LABEL)?, gid: host(GID_LABEL)? }))
}

/// No mapping is the identity.
fn host_root(mapping: &str) -> Result<u32, String> {
    if mapping.is_empty() {
        return Ok(0);
    }
    let mut root = None;
    for range in mapping.split(',') {
        let numbers: Vec<u32> = range.split(':').map_while(|number| number.parse().ok()).collect();
        let [container, host, length] = *numbers else { return Err(format!("cannot read {range:?}")) };
        // The highest number is "no id" (chown(2)).
        if [container, host, length].contains(&u32::MAX) {
            return Err(format!("{range:?} maps an id that cannot be"));
        }
        if container == 0 && length > 0 {
            root = root.or(Some(host));
        }
    }
    root.ok_or_else(|| format!("{mapping:?} does not map root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_mapped_as_containerd_maps_it() {
        assert_eq!(host_root(""), Ok(0));
        assert_eq!(host_root("0:100000:65536"), Ok(100_000));
        assert_eq!(host_root("1:5:10,0:7:1"), Ok(7));
        for bad in ["1:5:10", "0:7:0", "0:7", "0:-1:3", "0:4294967295:1", "a:b:c", "0:1:2,", ","] {
            assert!(host_root(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_labels_there_is_nothing_to_map() {
        let name = Name::from("a");
        assert_eq!(root_of(&name, &Labels::new()).unwrap(), None);
        let labels = Labels::from([(UID_LABEL.into(), "0:1000:10".into())]);
        assert_eq!(root_of(&name, &labels).unwrap(), Some(Owner { uid: 1000, gid: 0 }));
        let labels = Labels::from([(UID_LABEL.into(), "x".into())]);
        assert!(root_of(&name, &labels).unwrap_err().to_string().contains(UID_LABEL));
    }
}
