//! A pod's manifest as runtime specs; both backends share it. May use the API's types and the contract; only
//! [`files`] touches the disk.

pub mod admission;
pub mod container;
pub mod dns;
pub mod downward;
pub mod env;
mod env_objects;
pub mod envfile;
pub mod files;
pub mod hostname;
pub mod hosts;
pub mod identity;
pub mod objects;
pub mod priority;
pub mod requests;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod selector;
pub mod sysctl;
pub mod volumes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use podstead_runtime::CgroupDriver;

use crate::node::capacity::Reservations;

/// What translation must know of the node.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Root directory of the agent's state: `<root>/pods/<uid>` as the kubelet lays it out.
    pub root_dir: PathBuf,
    /// Root of the pods' logs, `/var/log/pods` by default.
    pub pod_logs_dir: PathBuf,
    /// Cgroup under which `kubepods` stands; empty for the root.
    pub cgroup_root: String,
    /// How the runtime names cgroup parents.
    pub cgroup_driver: CgroupDriver,
    /// Node name.
    pub node_name: String,
    /// The node's addresses, the primary first.
    pub node_ips: Vec<IpAddr>,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// What of the node is not for pods.
    pub reserved: Reservations,
    /// Memory of the node in bytes.
    pub memory_capacity: i64,
    /// Processors of the node in thousandths.
    pub cpu_capacity: i64,
    /// Size in bytes of the file system under [`root_dir`](Self::root_dir).
    pub storage_capacity: i64,
    /// The runtime can mount read-only with everything below.
    pub recursive_read_only: bool,
    /// Containers get the runtime's seccomp profile unless they say otherwise (`--seccomp-default`).
    pub seccomp_default: bool,
    /// The longest pause between two instances of a container in a crash loop; `None` for the decision's own.
    pub max_restart_period: Option<Duration>,
    /// What the node says about names.
    pub dns: dns::Settings,
    /// What decides about security besides.
    pub security: security::Facts,
    /// What decides about limits besides.
    pub resources: resources::Facts,
}

impl NodeFacts {
    /// What pods may have together of `cpu` (thousandths), `memory` or `ephemeral-storage` (bytes).
    pub fn allocatable(&self, resource: &str) -> i64 {
        let all = [
            ("cpu", self.cpu_capacity),
            ("memory", self.memory_capacity),
            ("ephemeral-storage", self.storage_capacity),
        ];
        let all = all.map(|(name, amount)| (name.to_owned(), amount)).into();
        self.reserved.allocatable(&all).get(resource).copied().unwrap_or(0)
    }
}
