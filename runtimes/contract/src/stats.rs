//! Use of resources.

use serde::{Deserialize, Serialize};

use crate::sandbox::PodIdentity;
use crate::{ContainerId, SandboxId, Time};

/// Use of resources by one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerStats {
    /// Container.
    pub id: ContainerId,
    /// Its name in the pod.
    pub name: String,
    /// When it was read.
    pub read_at: Time,
    /// CPU time since its start, in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory in use without reclaimable pages, in bytes.
    pub memory_working_set: u64,
    /// Memory in use, in bytes.
    pub memory_usage: u64,
    /// Processes.
    pub pids: u64,
    /// Bytes in its writable layer.
    pub writable_bytes: u64,
    /// Inodes in its writable layer.
    pub writable_inodes: u64,
}

/// Use of resources by one sandbox, its containers included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxStats {
    /// Sandbox.
    pub id: SandboxId,
    /// Its pod.
    pub pod: PodIdentity,
    /// When it was read.
    pub read_at: Time,
    /// CPU time, in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory in use without reclaimable pages, in bytes.
    pub memory_working_set: u64,
    /// Bytes received by the pod's interface.
    pub network_rx_bytes: u64,
    /// Bytes sent by it.
    pub network_tx_bytes: u64,
}
