//! Which instances' postStart hooks are over, noted in the pod's directory. Touches only these notes.

use std::fs;
use std::path::PathBuf;

use podstead_runtime::{ContainerId, PodUid};

use super::{FilesError, failed, make_dir, write_atomically};
use crate::pod::{NodeFacts, identity};

/// Notes that the postStart hook of an instance is over; the note of an earlier instance goes.
pub fn note_hook(
    node: &NodeFacts,
    uid: &PodUid,
    container: &str,
    id: &ContainerId,
) -> Result<(), FilesError> {
    let dir = hooks_dir(node, uid);
    make_dir(uid, &dir, 0o700)?;
    let path = dir.join(container);
    write_atomically(&path, id.as_str().as_bytes(), 0o600).map_err(failed(uid, "write", &path))
}

/// The instances of the pod whose postStart hook is over.
pub fn hooks_over(node: &NodeFacts, uid: &PodUid) -> Vec<ContainerId> {
    let entries = fs::read_dir(hooks_dir(node, uid)).into_iter().flatten().flatten();
    entries.filter_map(|e| fs::read_to_string(e.path()).ok()).map(ContainerId).collect()
}

fn hooks_dir(node: &NodeFacts, uid: &PodUid) -> PathBuf {
    identity::pod_dir(node, uid).join("hooks")
}

#[cfg(test)]
mod tests {
    use super::super::tests::place;
    use super::*;

    #[test]
    fn of_each_container_the_last_hook_is_remembered() {
        let (_dir, node) = place();
        let uid = PodUid::from("u1");
        assert!(hooks_over(&node, &uid).is_empty());
        for (container, id) in [("a", "one"), ("b", "two"), ("a", "three")] {
            note_hook(&node, &uid, container, &id.into()).unwrap();
        }
        let mut over = hooks_over(&node, &uid);
        over.sort();
        assert_eq!(over, [ContainerId::from("three"), ContainerId::from("two")]);
    }
}
