//! What a runtime says of itself.

use serde::{Deserialize, Serialize};

/// Name and version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeInfo {
    /// Name, the prefix of container ids in statuses (`containerd`, `cri-o`, `podstead`).
    pub name: String,
    /// Version.
    pub version: String,
    /// Version of its API.
    pub api_version: String,
}

/// How the runtime wants cgroup parents named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupDriver {
    /// Paths.
    #[default]
    Cgroupfs,
    /// Slices.
    Systemd,
}

/// Whether pods can be started now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeStatus {
    /// `None` when it is ready, else why not.
    pub runtime_problem: Option<String>,
    /// `None` when pods with their own network can start, else why not. Host-network pods do not need it.
    pub network_problem: Option<String>,
    /// The cgroup driver, where the runtime tells.
    pub cgroup_driver: Option<CgroupDriver>,
    /// Whether it supports recursive read-only mounts.
    pub recursive_read_only: bool,
    /// Whether it supports user namespaces.
    pub user_namespaces: bool,
    /// Whether it can leave the groups of an image's `/etc/group` out.
    pub strict_groups: bool,
}
