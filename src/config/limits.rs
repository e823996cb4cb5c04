//! Flags about what pods may use, spelled as the kubelet spells them.

use clap::Args;

use super::ConfigError;

/// Flags about limits.
#[derive(Args, Clone, Debug)]
pub struct LimitFlags {
    /// Processes and threads of one pod together; -1: any number
    #[arg(long, value_name = "N", default_value_t = -1, allow_hyphen_values = true)]
    pub pod_max_pids: i64,
    /// Where memory runs out the kernel ends one process, not the whole container (cgroup v2)
    #[arg(long)]
    pub single_process_oom_kill: bool,
}

/// What pods may use at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processes and threads of one pod; `None` for any number.
    pub pod_max_pids: Option<i64>,
    /// One process ends, not its container, when memory runs out.
    pub single_process_oom_kill: bool,
}

impl LimitFlags {
    /// Checks them.
    pub(super) fn limits(&self) -> Result<Limits, ConfigError> {
        if self.pod_max_pids < -1 {
            return Err(ConfigError::PodMaxPids(self.pod_max_pids));
        }
        let pod_max_pids = Some(self.pod_max_pids).filter(|pids| *pids > 0);
        Ok(Limits { pod_max_pids, single_process_oom_kill: self.single_process_oom_kill })
    }
}
