//! What a pod's sandbox is made from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::PodUid;
use crate::resources::LinuxResources;
use crate::security::SandboxSecurity;

/// Which pod an object belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Name, node suffix included.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Uid.
    pub uid: PodUid,
}

impl PodIdentity {
    /// `namespace/name`: at most one pod of it may run.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A sandbox: CRI's PodSandboxConfig with RunPodSandbox's handler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// The pod.
    pub pod: PodIdentity,
    /// Counts the sandboxes of one pod, from 0.
    pub attempt: u32,
    /// Host name; empty for the node's.
    pub hostname: String,
    /// Absolute directory for the containers' logs; empty for none.
    pub log_directory: PathBuf,
    /// Resolver settings; `None` for the node's.
    pub dns: Option<DnsConfig>,
    /// Ports of the pod.
    pub port_mappings: Vec<PortMapping>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Runtime class handler; empty for the default.
    pub runtime_handler: String,
    /// Cgroup under which the runtime places everything of the pod: a path with the cgroupfs driver, a slice with
    /// systemd's; empty lets the runtime choose.
    pub cgroup_parent: String,
    /// Kernel parameters set in the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Security settings.
    pub security: SandboxSecurity,
    /// Overhead of the sandbox itself (runtime class).
    pub overhead: Option<LinuxResources>,
    /// Sum of the containers' resources.
    pub resources: Option<LinuxResources>,
}

/// Resolver settings of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// Name servers, addresses.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options as in resolv.conf(5).
    pub options: Vec<String>,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of a pod and, where `host_port` is not 0, of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortMapping {
    /// Protocol.
    pub protocol: Protocol,
    /// Port in the pod.
    pub container_port: u16,
    /// Port of the node; 0 for none.
    pub host_port: u16,
    /// Address of the node; empty for all.
    pub host_ip: String,
}
