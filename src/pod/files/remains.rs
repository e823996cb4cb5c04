//! The note in each pod's directory of what it takes to remove the pod when its manifest is gone. Touches only the note,
//! and directories in which there is nothing.

use std::fs;
use std::io;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use podstead_runtime::{PodIdentity, PodUid, Time};
use serde::{Deserialize, Serialize};

use super::{FilesError, failed, write_atomically};
use crate::pod::{NodeFacts, identity};

/// What must be known to take a pod's host side away when its manifest is gone: `<root>/pods/<uid>/podstead.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// The pod.
    pub pod: PodIdentity,
    /// Its cgroup, a path below the hierarchy's root.
    pub cgroup: String,
    /// Its log directory.
    pub log_dir: PathBuf,
    /// When it was first seen; "never" in notes of earlier versions.
    #[serde(default)]
    pub since: Time,
}

/// The note's name.
pub(super) const REMAINS: &str = "podstead.json";

/// Writes the note.
pub(super) fn write(node: &NodeFacts, pod: &Pod) -> Result<(), FilesError> {
    let id = identity::identity(pod);
    let dir = identity::pod_dir(node, &id.uid);
    let note = fs::read(dir.join(REMAINS)).ok();
    let before = note.and_then(|note| serde_json::from_slice::<Remains>(&note).ok());
    let remains = Remains {
        since: before.and_then(|note| note.since.known()).unwrap_or_else(Time::now),
        cgroup: identity::cgroup_path(node, pod),
        log_dir: identity::log_dir(node, &id),
        pod: id.clone(),
    };
    write_atomically(&dir.join(REMAINS), &serde_json::to_vec(&remains).unwrap_or_default(), 0o600)
        .map_err(failed(&id.uid, "write", &dir))
}

/// All pods that have a directory, with what it takes to remove them; `None` where the note is damaged. A directory
/// without a note is not ours, unless it is empty: then its making was interrupted.
pub fn remains(node: &NodeFacts) -> io::Result<Vec<(PodUid, Option<Remains>)>> {
    let entries = match fs::read_dir(node.root_dir.join("pods")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(uid) = entry.file_name().into_string() {
            let note = match fs::read(entry.path().join(REMAINS)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if !fs::read_dir(entry.path()).is_ok_and(|mut entries| entries.next().is_none()) {
                        continue;
                    }
                    None
                }
                note => note.ok(),
            };
            found.push((PodUid(uid), note.and_then(|n| serde_json::from_slice(&n).ok())));
        }
    }
    Ok(found)
}

/// Removes a pod's directory in which nothing says what else belongs to it, if there is nothing in it at all.
pub fn remove_empty(node: &NodeFacts, uid: &PodUid) -> Result<(), FilesError> {
    let dir = identity::pod_dir(node, uid);
    match fs::remove_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed(uid, "remove (its note podstead.json is damaged)", &dir)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::place;
    use super::*;

    #[test]
    fn only_what_bears_our_note_is_ours_to_remove() {
        let (_dir, node) = place();
        let pods = node.root_dir.join("pods");
        fs::create_dir_all(pods.join("foreign/volumes")).unwrap();
        fs::create_dir_all(pods.join("interrupted")).unwrap();
        fs::create_dir_all(pods.join("damaged")).unwrap();
        fs::write(pods.join("damaged").join(REMAINS), "{").unwrap();
        let mut found: Vec<String> = remains(&node).unwrap().into_iter().map(|(uid, _)| uid.0).collect();
        found.sort();
        assert_eq!(found, ["damaged", "interrupted"]);
        remove_empty(&node, &"interrupted".to_owned().into()).unwrap();
        assert!(
            remove_empty(&node, &"damaged".to_owned().into()).unwrap_err().to_string().contains("damaged")
        );
        assert!(pods.join("foreign/volumes").exists() && !pods.join("interrupted").exists());
    }
}
