//! Files of a pod on the host: its directory, volumes, hosts file, logs (`kubelet-static-pods.md 4.1, 4.2`). Blocking;
//! touches only `<root>/pods/<uid>`, the pod's log directory, and host paths whose type says "create".

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use podstead_runtime::{PodIdentity, PodUid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::volumes::Source;
use super::{NodeFacts, hosts, identity, volumes};

/// A pod's files could not be made or removed.
#[derive(Debug, Error)]
pub enum FilesError {
    /// An operation failed.
    #[error("pod {pod}: cannot {what} {path}: {source}")]
    Io {
        /// The pod's uid.
        pod: PodUid,
        /// The operation.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A host path is not what its volume demands.
    #[error("pod {pod}: hostPath {path}: {problem}")]
    HostPath {
        /// The pod's uid.
        pod: PodUid,
        /// The path.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Something is still mounted below the pod's directory.
    #[error("pod {pod}: {path} is still mounted; unmount it, the removal goes on by itself")]
    Busy {
        /// The pod's uid.
        pod: PodUid,
        /// The mount point.
        path: PathBuf,
    },
}

/// What must be known to take a pod's host side away when its manifest is gone: `<root>/pods/<uid>/podstead.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// The pod.
    pub pod: PodIdentity,
    /// Its cgroup, a path below the hierarchy's root.
    pub cgroup: String,
    /// Its log directory.
    pub log_dir: PathBuf,
}

const REMAINS: &str = "podstead.json";

fn failed<'a>(
    uid: &'a PodUid,
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> FilesError + use<'a> {
    move |source| FilesError::Io { pod: uid.clone(), what, path: path.to_owned(), source }
}

fn make_dir(uid: &PodUid, path: &Path, mode: u32) -> Result<(), FilesError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed(uid, "make the directory", path))
}

/// Makes the pod's directories and volumes. May be called again; contents stay.
pub fn prepare(node: &NodeFacts, pod: &Pod) -> Result<(), FilesError> {
    let id = identity::identity(pod);
    let dir = identity::pod_dir(node, &id.uid);
    make_dir(&id.uid, &dir, 0o750)?;
    let remains = Remains {
        cgroup: identity::cgroup_path(node, pod),
        log_dir: identity::log_dir(node, &id),
        pod: id.clone(),
    };
    write_atomically(&dir.join(REMAINS), &serde_json::to_vec(&remains).unwrap_or_default(), 0o600)
        .map_err(failed(&id.uid, "write", &dir))?;
    make_dir(&id.uid, &remains.log_dir, 0o755)?;
    let spec = pod.spec.as_ref();
    for volume in spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        match volumes::source(node, &id.uid, volume) {
            Some(Source::EmptyDir { path }) => empty_dir(&id.uid, &path)?,
            Some(Source::HostPath { path, kind }) => host_path(&id.uid, &path, &kind)?,
            None => {}
        }
    }
    Ok(())
}

fn empty_dir(uid: &PodUid, path: &Path) -> Result<(), FilesError> {
    make_dir(uid, path, 0o750)?;
    // Explicit, so that the process's umask does not matter.
    fs::set_permissions(path, Permissions::from_mode(0o777)).map_err(failed(uid, "open to all", path))
}

fn host_path(uid: &PodUid, path: &Path, kind: &str) -> Result<(), FilesError> {
    let found = match fs::metadata(path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(uid, "look at", path)(error)),
    };
    let wrong = |problem: String| FilesError::HostPath { pod: uid.clone(), path: path.to_owned(), problem };
    match (kind, found.as_ref().map(fs::Metadata::file_type)) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => make_dir(uid, path, 0o755),
        ("FileOrCreate", None) => {
            let made = fs::OpenOptions::new().write(true).create_new(true).open(path);
            made.map_err(failed(uid, "make the file", path))?;
            fs::set_permissions(path, Permissions::from_mode(0o644)).map_err(failed(uid, "chmod", path))
        }
        (_, None) => Err(wrong(format!("it does not exist, and type {kind} does not make it"))),
        (_, Some(is)) => {
            let fits = match kind {
                "Directory" | "DirectoryOrCreate" => is.is_dir(),
                "File" | "FileOrCreate" => is.is_file(),
                "Socket" => is.is_socket(),
                "CharDevice" => is.is_char_device(),
                "BlockDevice" => is.is_block_device(),
                _ => false,
            };
            if fits {
                Ok(())
            } else {
                Err(wrong(format!("it is not a {}", kind.trim_end_matches("OrCreate"))))
            }
        }
    }
}

/// Writes the pod's hosts file and returns its path; `None` for a pod with its own network and no address yet.
pub fn write_hosts(node: &NodeFacts, pod: &Pod, ips: &[IpAddr]) -> Result<Option<PathBuf>, FilesError> {
    let id = identity::identity(pod);
    let path = identity::pod_dir(node, &id.uid).join("etc-hosts");
    let host_network = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
    if !host_network && ips.is_empty() {
        return Ok(None);
    }
    let text = if host_network {
        hosts::host_network(pod, &fs::read_to_string("/etc/hosts").unwrap_or_default())
    } else {
        hosts::own(pod, &node.dns.domain, ips)
    };
    // In place, not by rename: running containers have this very inode mounted.
    // No more of it than what it should be: containers may write to it.
    let mut current = String::new();
    let room = u64::try_from(text.len()).unwrap_or(u64::MAX).saturating_add(1);
    if let Ok(file) = fs::File::open(&path) {
        let _ = file.take(room).read_to_string(&mut current);
    }
    if current != text {
        fs::write(&path, text).map_err(failed(&id.uid, "write", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o644)).map_err(failed(&id.uid, "chmod", &path))?;
    }
    Ok(Some(path))
}

/// Makes the directory of a container's logs; some runtimes want it to exist (`cri-servers.md`).
pub fn make_log_dir(node: &NodeFacts, pod: &PodIdentity, container: &str) -> Result<(), FilesError> {
    make_dir(&pod.uid, &identity::log_dir(node, pod).join(container), 0o755)
}

/// The highest attempt that a log file of the container tells of (`kubelet-static-pods.md 2.8`).
pub fn last_logged_attempt(node: &NodeFacts, pod: &PodIdentity, container: &str) -> Option<u32> {
    let entries = fs::read_dir(identity::log_dir(node, pod).join(container)).ok()?;
    let number = |name: &str| name.split_once(".log").and_then(|(n, _)| n.parse().ok());
    entries.flatten().filter_map(|e| number(e.file_name().to_str()?)).max()
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

/// Writes a file so that it is either the old one or the new one, whatever happens.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use io::Write;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(".tmp-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_data()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, PodSpec, Volume};

    use super::*;

    fn place() -> (tempfile::TempDir, NodeFacts) {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeFacts {
            root_dir: dir.path().join("root"),
            pod_logs_dir: dir.path().join("logs"),
            ..NodeFacts::default()
        };
        (dir, node)
    }

    fn pod(volumes: Vec<Volume>) -> Pod {
        let spec = PodSpec { volumes: Some(volumes), ..PodSpec::default() };
        let mut pod = Pod { spec: Some(spec), ..Pod::default() };
        pod.metadata.name = Some("web-node".into());
        pod.metadata.namespace = Some("default".into());
        pod.metadata.uid = Some("u1".into());
        pod
    }

    fn host_volume(path: &Path, kind: &str) -> Volume {
        let source = HostPathVolumeSource { path: path.display().to_string(), type_: Some(kind.into()) };
        Volume { name: "v".into(), host_path: Some(source), ..Volume::default() }
    }

    #[test]
    fn the_hosts_file_keeps_its_inode_and_waits_for_an_address() {
        let (_dir, node) = place();
        let pod = pod(vec![]);
        prepare(&node, &pod).unwrap();
        assert_eq!(write_hosts(&node, &pod, &[]).unwrap(), None);
        let path = write_hosts(&node, &pod, &["10.0.0.1".parse().unwrap()]).unwrap().unwrap();
        let first = fs::metadata(&path).unwrap();
        write_hosts(&node, &pod, &["10.0.0.2".parse().unwrap()]).unwrap();
        let second = fs::metadata(&path).unwrap();
        assert_eq!((first.ino(), second.mode() & 0o777), (second.ino(), 0o644));
        assert!(fs::read_to_string(&path).unwrap().ends_with("10.0.0.2\tweb-node\n"));
    }

    #[test]
    fn preparing_twice_keeps_contents_and_removing_leaves_nothing() {
        let (_dir, node) = place();
        let volume = Volume {
            name: "data".into(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        };
        let pod = pod(vec![volume]);
        prepare(&node, &pod).unwrap();
        let uid = PodUid::from("u1");
        let Some(Source::EmptyDir { path }) =
            volumes::source(&node, &uid, &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0])
        else {
            panic!("an emptyDir")
        };
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o777);
        fs::write(path.join("kept"), "x").unwrap();
        prepare(&node, &pod).unwrap();
        assert!(path.join("kept").exists());
        let found = remains(&node).unwrap();
        assert_eq!(found[0].0, uid);
        assert_eq!(found[0].1.as_ref().unwrap().pod.full_name(), "default/web-node");
        remove(&node, &uid).unwrap();
        remove(&node, &uid).unwrap();
        assert_eq!(remains(&node).unwrap(), []);
    }

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

    #[test]
    fn host_paths_are_what_their_type_demands_or_are_made() {
        let (dir, node) = place();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        let try_it = |path: &Path, kind: &str| prepare(&node, &pod(vec![host_volume(path, kind)]));
        try_it(&at("made"), "DirectoryOrCreate").unwrap();
        try_it(&at("touched"), "FileOrCreate").unwrap();
        assert!(at("made").is_dir() && at("touched").is_file());
        try_it(&at("absent"), "").unwrap();
        for (name, kind) in [
            ("absent", "Directory"),
            ("absent", "File"),
            ("file", "Directory"),
            ("made", "File"),
            ("file", "Socket"),
        ] {
            let error = try_it(&at(name), kind).unwrap_err();
            assert!(matches!(error, FilesError::HostPath { .. }), "{name} as {kind}: {error}");
        }
        assert!(!at("absent").exists());
    }

    #[test]
    fn the_last_attempt_is_read_from_logs_rotated_ones_included() {
        let (_dir, node) = place();
        let id = identity::identity(&pod(vec![]));
        assert_eq!(last_logged_attempt(&node, &id, "c"), None);
        make_log_dir(&node, &id, "c").unwrap();
        let logs = identity::log_dir(&node, &id).join("c");
        for name in ["0.log", "2.log", "10.log.20260101-000000.gz", "x.log", "11.txt"] {
            fs::write(logs.join(name), "").unwrap();
        }
        assert_eq!(last_logged_attempt(&node, &id, "c"), Some(10));
    }
}
