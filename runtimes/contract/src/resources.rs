//! Limits and shares of a container: CRI's LinuxContainerResources.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limits and shares. `None` and 0 mean "not set" as in the CRI.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxResources {
    /// CFS period in microseconds.
    pub cpu_period: i64,
    /// CFS quota in microseconds per period; negative for none.
    pub cpu_quota: i64,
    /// CPU shares in cgroup v1 terms (2 to 262144).
    pub cpu_shares: i64,
    /// Memory limit in bytes.
    pub memory_limit: i64,
    /// Memory and swap limit in bytes.
    pub memory_swap_limit: i64,
    /// The kernel's OOM score adjustment, -1000 to 1000.
    pub oom_score_adj: i64,
    /// CPUs, as in cpuset(7).
    pub cpuset_cpus: String,
    /// Memory nodes, likewise.
    pub cpuset_mems: String,
    /// Huge page limits: page size (`2MB`) and bytes.
    pub hugepages: BTreeMap<String, u64>,
    /// Raw cgroup v2 settings.
    pub unified: BTreeMap<String, String>,
    /// Limit of processes; `None` for the runtime's default.
    pub pids_limit: Option<i64>,
}
