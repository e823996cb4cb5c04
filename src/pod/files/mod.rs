//! Files of a pod on the host: its directory, volumes, hosts file, logs (`kubelet-static-pods.md 4.1, 4.2`). Blocking;
//! touches only `<root>/pods/<uid>`, the pod's log directory, and host paths whose type says "create".

mod atomic;
mod below;
mod env;
mod hooks;
mod hosts;
mod logs;
mod message;
mod mountinfo;
mod ownership;
mod remains;
mod removal;
mod sizes;
mod subpath;
mod volumes;

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use podstead_runtime::PodUid;
use thiserror::Error;

pub use env::read_env_files;
pub use hooks::{hooks_over, note_hook};
pub use hosts::write_hosts;
pub use logs::{last_logged_attempt, make_log_dir};
pub use message::{make_message, message_path, read_message};
pub use remains::{Remains, remains, remove_empty};
pub use removal::{remove, unmount_all};
pub use sizes::{note_pod_size, note_size, sizes};
pub use subpath::bind_sub_paths;
pub use volumes::refresh;

use super::{NodeFacts, identity};

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
    /// A volume cannot be made.
    #[error("pod {pod}: {problem}")]
    Volume {
        /// The pod's uid.
        pod: PodUid,
        /// Which volume, and why not.
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
    remains::write(node, pod)?;
    make_dir(&id.uid, &identity::log_dir(node, &id), 0o755)?;
    volumes::prepare(node, pod)
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
    use k8s_openapi::api::core::v1::{PodSpec, Volume};

    use super::*;

    pub(super) fn place() -> (tempfile::TempDir, NodeFacts) {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeFacts {
            root_dir: dir.path().join("root"),
            pod_logs_dir: dir.path().join("logs"),
            ..NodeFacts::default()
        };
        (dir, node)
    }

    /// Mounts and other owners need root; tests of them pass without it.
    pub(super) fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    pub(super) fn pod(volumes: Vec<Volume>) -> Pod {
        let spec = PodSpec { volumes: Some(volumes), ..PodSpec::default() };
        let mut pod = Pod { spec: Some(spec), ..Pod::default() };
        pod.metadata.name = Some("web-node".into());
        pod.metadata.namespace = Some("default".into());
        pod.metadata.uid = Some("u1".into());
        pod
    }
}
