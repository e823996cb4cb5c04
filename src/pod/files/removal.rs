//! The end of a pod's directory. Touches only that directory: no link is followed and no other file system is entered.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use podstead_runtime::PodUid;

use super::remains::REMAINS;
use super::{FilesError, failed};
use crate::pod::{NodeFacts, identity};

/// Removes the pod's directory, never following a link and never crossing into another file system.
pub fn remove(node: &NodeFacts, uid: &PodUid) -> Result<(), FilesError> {
    let dir = identity::pod_dir(node, uid);
    let device = match fs::symlink_metadata(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed(uid, "look at", &dir))?.dev(),
    };
    refuse_mounts(uid, &dir)?;
    // The note goes last: without it nobody knows what else is to be removed.
    for entry in fs::read_dir(&dir).map_err(failed(uid, "list", &dir))?.flatten() {
        let path = entry.path();
        let found = fs::symlink_metadata(&path).map_err(failed(uid, "look at", &path))?;
        if found.is_dir() && found.dev() != device {
            return Err(FilesError::Busy { pod: uid.clone(), path });
        }
        if found.is_dir() {
            fs::remove_dir_all(&path).map_err(failed(uid, "remove", &path))?;
        } else if entry.file_name() != REMAINS {
            fs::remove_file(&path).map_err(failed(uid, "remove", &path))?;
        }
    }
    fs::remove_dir_all(&dir).map_err(failed(uid, "remove", &dir))
}

fn refuse_mounts(uid: &PodUid, dir: &Path) -> Result<(), FilesError> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = |line: &str| {
        let point = PathBuf::from(line.split(' ').nth(4)?.replace("\\040", " "));
        point.starts_with(dir).then_some(point)
    };
    match table.lines().find_map(below) {
        Some(path) => Err(FilesError::Busy { pod: uid.clone(), path }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::prepare;
    use super::super::tests::{place, pod};
    use super::*;

    #[test]
    fn removing_never_follows_a_link() {
        let (dir, node) = place();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        prepare(&node, &pod(vec![])).unwrap();
        let uid = PodUid::from("u1");
        std::os::unix::fs::symlink(&outside, identity::pod_dir(&node, &uid).join("link")).unwrap();
        remove(&node, &uid).unwrap();
        assert!(outside.join("kept").exists());
    }
}
