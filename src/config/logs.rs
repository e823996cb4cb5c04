//! Flags about the containers' logs, spelled as the kubelet spells them.

use std::time::Duration;

use clap::Args;

use super::{ConfigError, duration};
use crate::node::log_rotation::Policy;
use crate::quantity::Amount;

/// Flags about logs.
#[derive(Args, Clone, Debug)]
pub struct LogFlags {
    /// Size from which a container's log is rotated; negative: never
    #[arg(long, value_name = "SIZE", default_value = "10Mi", allow_hyphen_values = true)]
    pub container_log_max_size: String,
    /// Files of one container's log, at least 2
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub container_log_max_files: usize,
    /// How often the logs are looked at while one grows
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub container_log_monitor_interval: Duration,
}

impl LogFlags {
    /// Checks them; `None` when logs are not rotated.
    pub(super) fn policy(&self) -> Result<Option<Policy>, ConfigError> {
        let size = &self.container_log_max_size;
        let amount: Amount =
            size.parse().map_err(|error| ConfigError::Logs(format!("--container-log-max-size: {error}")))?;
        if self.container_log_max_files < 2 {
            return Err(ConfigError::Logs("--container-log-max-files must be at least 2".into()));
        }
        let period = self.container_log_monitor_interval;
        if period < Duration::from_millis(100) {
            return Err(ConfigError::Logs("--container-log-monitor-interval must be at least 100ms".into()));
        }
        if amount.nano() < 0 {
            return Ok(None);
        }
        let max_size = u64::try_from(amount.whole()).unwrap_or_default();
        if max_size == 0 {
            return Err(ConfigError::Logs(format!("--container-log-max-size {size} is no size of a file")));
        }
        Ok(Some(Policy { max_size, max_files: self.container_log_max_files, period }))
    }
}
