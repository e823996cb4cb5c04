//! What a container is made from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::image::ImageSpec;
use crate::resources::LinuxResources;
use crate::security::{ContainerSecurity, IdMapping};

/// A container: CRI's ContainerConfig.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Name in the pod.
    pub name: String,
    /// Counts the instances of one container, from 0; equal to the restart count.
    pub attempt: u32,
    /// The image as the user wrote it.
    pub image: ImageSpec,
    /// What [`image`](Self::image) was resolved to (an image id); empty lets the runtime resolve it.
    pub image_id: String,
    /// Replaces the image's entry point when not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments when not empty.
    pub args: Vec<String>,
    /// Working directory; empty for the image's.
    pub working_dir: String,
    /// Environment, added to the image's.
    pub env: Vec<EnvVar>,
    /// Mounts, in the order of the spec; the runtime sorts by depth of destination.
    pub mounts: Vec<Mount>,
    /// Device nodes of the host.
    pub devices: Vec<Device>,
    /// Fully qualified names of CDI devices.
    pub cdi_devices: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Log file, relative to the sandbox's log directory; empty for none.
    pub log_path: PathBuf,
    /// Keep stdin open.
    pub stdin: bool,
    /// Close stdin after the first attach ends.
    pub stdin_once: bool,
    /// Give the container a terminal.
    pub tty: bool,
    /// Stop signal (`SIGTERM`, `SIGRTMIN+3`); empty for the image's.
    pub stop_signal: String,
    /// Limits and shares.
    pub resources: LinuxResources,
    /// Security settings.
    pub security: ContainerSecurity,
}

/// One environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// How mounts made later travel between host and container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all (rprivate).
    #[default]
    Private,
    /// From host to container (rslave).
    HostToContainer,
    /// Both ways (rshared).
    Bidirectional,
}

/// A mount into the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// Absolute path on the host; unused with `image`. A missing one is made as a directory.
    pub source: PathBuf,
    /// Read-only.
    pub read_only: bool,
    /// Read-only with everything mounted below it.
    pub recursive_read_only: bool,
    /// Relabel for SELinux.
    pub selinux_relabel: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// Ids of the mount as the container sees them.
    pub uid_mappings: Vec<IdMapping>,
    /// Groups likewise.
    pub gid_mappings: Vec<IdMapping>,
    /// Mount an image instead of a path.
    pub image: Option<ImageVolume>,
}

/// An image as the source of a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageVolume {
    /// The image.
    pub image: ImageSpec,
    /// Path inside the image; empty for its root.
    pub sub_path: String,
}

/// A device node of the host in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path in the container.
    pub container_path: PathBuf,
    /// Path on the host.
    pub host_path: PathBuf,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}
