//! What pods and their containers were resized to, noted in the pod's directory: a runtime's object cannot be annotated once
//! it is made. Touches only these notes.
//!
//! A note has every size that its owner may have. It is written before a change with the old and the new one, and after it
//! with the new one, so that an agent that dies in between leaves a doubt and no error.

use std::fs;
use std::path::PathBuf;

use podstead_runtime::{ContainerId, PodUid};

use super::{FilesError, failed, make_dir, write_atomically};
use crate::plan::{Size, Sizes};
use crate::pod::{NodeFacts, identity};

/// No container has this name.
const POD: &str = ".pod";

/// Notes the sizes that the pod's cgroup may have.
pub fn note_pod_size(node: &NodeFacts, uid: &PodUid, sizes: &[Size]) -> Result<(), FilesError> {
    write(node, uid, POD, "", sizes)
}

/// Notes the sizes that an instance may have; the note of an earlier instance goes.
pub fn note_size(
    node: &NodeFacts,
    uid: &PodUid,
    container: &str,
    id: &ContainerId,
    sizes: &[Size],
) -> Result<(), FilesError> {
    write(node, uid, container, id.as_str(), sizes)
}

fn write(node: &NodeFacts, uid: &PodUid, name: &str, id: &str, sizes: &[Size]) -> Result<(), FilesError> {
    let dir = directory(node, uid);
    make_dir(uid, &dir, 0o700)?;
    let lines: Vec<String> =
        std::iter::once(id.to_owned()).chain(sizes.iter().map(Size::to_string)).collect();
    let text = lines.join("\n") + "\n";
    let path = dir.join(name);
    write_atomically(&path, text.as_bytes(), 0o600).map_err(failed(uid, "write", &path))
}

/// What is noted of the pod. A damaged note counts as none.
pub fn sizes(node: &NodeFacts, uid: &PodUid) -> Sizes {
    let mut all = Sizes::default();
    for entry in fs::read_dir(directory(node, uid)).into_iter().flatten().flatten() {
        // A file that a killed agent was writing says nothing.
        if entry.file_name() != POD && entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let mut lines = text.lines();
        let id = lines.next().unwrap_or_default().to_owned();
        let sizes: Result<Vec<Size>, _> = lines.map(str::parse).collect();
        match sizes {
            Ok(sizes) if !sizes.is_empty() && entry.file_name() == POD => all.pod = sizes,
            Ok(sizes) if !sizes.is_empty() && !id.is_empty() => {
                all.containers.insert(ContainerId(id), sizes);
            }
            _ => {}
        }
    }
    all
}

fn directory(node: &NodeFacts, uid: &PodUid) -> PathBuf {
    identity::pod_dir(node, uid).join("sizes")
}

#[cfg(test)]
mod tests {
    use super::super::tests::place;
    use super::*;

    #[test]
    fn of_the_pod_and_of_each_container_the_last_note_is_remembered() {
        let (_dir, node) = place();
        let uid = PodUid::from("u1");
        assert_eq!(sizes(&node, &uid), Sizes::default());
        let of = |cpu| Size { cpu, ..Size::default() };
        note_pod_size(&node, &uid, &[of(1), of(2)]).unwrap();
        note_pod_size(&node, &uid, &[of(2)]).unwrap();
        note_size(&node, &uid, "a", &"one".into(), &[of(3)]).unwrap();
        note_size(&node, &uid, "a", &"two".into(), &[of(3), of(4)]).unwrap();
        let found = sizes(&node, &uid);
        assert_eq!(found.pod, [of(2)]);
        assert_eq!(found.containers, [("two".into(), vec![of(3), of(4)])].into());
        fs::write(directory(&node, &uid).join("a"), "two\ncpu=").unwrap();
        assert!(sizes(&node, &uid).containers.is_empty(), "half a note is none");
    }
}
