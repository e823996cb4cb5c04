//! Where volumes are on the host, and the mounts they become (`kubelet-static-pods.md 4.1`). Pure.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
use podstead_runtime::{Mount, PodUid};
use thiserror::Error;

use super::{NodeFacts, identity};

/// A mount that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("container {container}: mount {path}: there is no volume {volume:?} that can be mounted")]
pub struct NoVolume {
    /// The container.
    pub container: String,
    /// Its mount path.
    pub path: String,
    /// The volume named.
    pub volume: String,
}

/// What a volume is on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path of the node, with the check its type asks for.
    HostPath {
        /// The path.
        path: PathBuf,
        /// `""`, `Directory`, `DirectoryOrCreate`, `File`, `FileOrCreate`, `Socket`, `CharDevice`, `BlockDevice`.
        kind: String,
    },
    /// A directory of the pod's own.
    EmptyDir {
        /// The directory.
        path: PathBuf,
    },
}

impl Source {
    /// The path to mount.
    pub fn path(&self) -> &Path {
        match self {
            Self::HostPath { path, .. } | Self::EmptyDir { path } => path,
        }
    }
}

/// The volume on the host; `None` for kinds that admission refuses.
pub fn source(node: &NodeFacts, uid: &PodUid, volume: &Volume) -> Option<Source> {
    if let Some(host) = &volume.host_path {
        let kind = host.type_.clone().unwrap_or_default();
        return Some(Source::HostPath { path: PathBuf::from(&host.path), kind });
    }
    volume.empty_dir.as_ref().map(|_| Source::EmptyDir {
        path: identity::pod_dir(node, uid).join("volumes/kubernetes.io~empty-dir").join(&volume.name),
    })
}

/// The container's mounts, in the order of the manifest.
pub fn mounts(
    node: &NodeFacts,
    uid: &PodUid,
    spec: &PodSpec,
    container: &Container,
) -> Result<Vec<Mount>, NoVolume> {
    let find = |name: &str| {
        let volume = spec.volumes.iter().flatten().find(|v| v.name == name)?;
        source(node, uid, volume)
    };
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .map(|mount| {
            let source = find(&mount.name).ok_or_else(|| NoVolume {
                container: container.name.clone(),
                path: mount.mount_path.clone(),
                volume: mount.name.clone(),
            })?;
            Ok(Mount {
                destination: Path::new("/").join(&mount.mount_path),
                source: source.path().to_owned(),
                read_only: mount.read_only.unwrap_or(false),
                selinux_relabel: matches!(source, Source::EmptyDir { .. }),
                ..Mount::default()
            })
        })
        .collect()
}
