//! Links from `/var/log/containers` to the containers' logs, for log collectors (`kubelet-static-pods.md 2.9`). Blocking;
//! touches only that directory, and in it only links that point below the pods' logs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use podstead_runtime::{PodIdentity, Snapshot, labels};

use crate::pod::identity::log_link_name;

/// Makes the links of what is there, and removes ours whose container is gone. A container whose log does not exist
/// yet gets its link at the next call.
pub fn tidy(links_dir: &Path, logs_dir: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let wanted = wanted(snapshot);
    for (name, log) in &wanted {
        let link = links_dir.join(name);
        if fs::read_link(&link).is_ok_and(|target| target == *log) || !log.exists() {
            continue;
        }
        fs::create_dir_all(links_dir)?;
        let _ = fs::remove_file(&link);
        symlink(log, &link)?;
    }
    let entries = match fs::read_dir(links_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        let known = entry.file_name().to_str().is_some_and(|name| wanted.contains_key(name));
        let ours = fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(logs_dir));
        if ours && !known && !fs::metadata(entry.path()).is_ok_and(|_| foreign(&entry.path(), snapshot)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A live link to a log of a pod that is not ours is another agent's business.
fn foreign(link: &Path, snapshot: &Snapshot) -> bool {
    let Ok(target) = fs::read_link(link) else { return false };
    let uid_of = |p: &Path| Some(p.parent()?.parent()?.file_name()?.to_str()?.rsplit('_').next()?.to_owned());
    uid_of(&target).is_some_and(|uid| !snapshot.sandboxes.iter().any(|s| s.pod.uid.0 == uid))
}

fn wanted(snapshot: &Snapshot) -> BTreeMap<String, PathBuf> {
    let containers = snapshot.containers.iter().filter(|c| !c.log_path.as_os_str().is_empty());
    containers
        .map(|c| {
            let label = |key: &str| c.labels.get(key).cloned().unwrap_or_default();
            let pod = PodIdentity {
                name: label(labels::POD_NAME),
                namespace: label(labels::POD_NAMESPACE),
                uid: c.pod_uid(),
            };
            (log_link_name(&pod, &c.name, c.id.as_str()), c.log_path.clone())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use podstead_runtime::{Container, ContainerId};

    use super::*;

    #[test]
    fn links_follow_the_containers_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (links, logs) = (dir.path().join("containers"), dir.path().join("pods"));
        let log = logs.join("default_web-node_u1/c/0.log");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        let container = Container {
            id: ContainerId::from("abc"),
            name: "c".into(),
            log_path: log.clone(),
            labels: BTreeMap::from([
                (labels::POD_NAME.to_owned(), "web-node".to_owned()),
                (labels::POD_NAMESPACE.to_owned(), "default".to_owned()),
                (labels::POD_UID.to_owned(), "u1".to_owned()),
            ]),
            ..Container::default()
        };
        let snapshot = Snapshot { sandboxes: vec![], containers: vec![container] };
        tidy(&links, &logs, &snapshot).unwrap();
        let link = links.join("web-node_default_c-abc.log");
        assert!(fs::symlink_metadata(&link).is_err(), "no link before the log exists");
        assert!(!links.exists(), "no directory without need");
        fs::write(&log, "x").unwrap();
        tidy(&links, &logs, &snapshot).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), log);
        fs::remove_file(&link).unwrap();
        symlink("/elsewhere", &link).unwrap();
        tidy(&links, &logs, &snapshot).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), log, "a wrong link is set right");
        let other = logs.join("default_theirs-node_u2/c/0.log");
        fs::create_dir_all(other.parent().unwrap()).unwrap();
        fs::write(&other, "x").unwrap();
        symlink(&other, links.join("theirs.log")).unwrap();
        symlink("/etc/passwd", links.join("foreign.log")).unwrap();
        fs::remove_file(&log).unwrap();
        tidy(&links, &logs, &Snapshot::default()).unwrap();
        assert!(fs::symlink_metadata(&link).is_err());
        assert!(fs::symlink_metadata(links.join("foreign.log")).is_ok());
        assert!(fs::symlink_metadata(links.join("theirs.log")).is_ok(), "a live log of another agent's pod");
        fs::remove_file(&other).unwrap();
        tidy(&links, &logs, &Snapshot::default()).unwrap();
        assert!(fs::symlink_metadata(links.join("theirs.log")).is_err(), "a dead one is nobody's");
    }
}
