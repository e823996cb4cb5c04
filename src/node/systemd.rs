//! Pods' slices where systemd keeps the cgroups (`kubelet-static-pods.md 4.5`). Blocking; runs `busctl` and `systemctl`;
//! touches only the slices it is given.

use std::process::{Command, Stdio};

use podstead_runtime::LinuxResources;
use thiserror::Error;

use super::cgroup::weight;

/// systemd did not do what was asked.
#[derive(Debug, Error)]
#[error("{slice}: cannot {what}: {cause}")]
pub struct SliceError {
    /// What was being done.
    pub what: &'static str,
    /// The slice.
    pub slice: String,
    /// systemd's words, or why its tools cannot be run.
    pub cause: String,
}

const BUS: [&str; 4] =
    ["call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
/// No limit, in systemd's words.
const INFINITY: u64 = u64::MAX;

/// Starts the slice with these limits, or sets them when it is there: as a transient unit, of which nothing stays when it
/// stops.
pub fn ensure(slice: &str, limits: &LinuxResources) -> Result<(), SliceError> {
    let limits = properties(limits);
    let mut start = vec!["StartTransientUnit".to_owned(), "ssa(sv)a(sa(sv))".to_owned()];
    start.extend([slice, "fail"].map(str::to_owned));
    let fixed = ["Description", "s", "podstead pod", "DefaultDependencies", "b", "false"];
    start.push((limits.len() / 3 + fixed.len() / 3).to_string());
    start.extend(fixed.map(str::to_owned));
    start.extend(limits.iter().cloned().chain(["0".to_owned()]));
    if let Err(error) = call(slice, "start it", &start) {
        let mut set = vec!["SetUnitProperties".to_owned(), "sba(sv)".to_owned()];
        set.extend([slice, "true"].map(str::to_owned));
        set.push((limits.len() / 3).to_string());
        set.extend(limits);
        // Only one that exists can be set; else the start's error is the one that says something.
        call(slice, "set its limits", &set).map_err(|_| error)?;
    }
    // The call only queues the start.
    run("systemctl", slice, "start it", &["start", slice])
}

/// Stops the slice with everything in it. One that is not there is a success.
pub fn stop(slice: &str) -> Result<(), SliceError> {
    run("systemctl", slice, "stop it", &["stop", slice])
}

/// Name, type and value of each limit; what is not limited is said so, as it may have been before.
fn properties(limits: &LinuxResources) -> Vec<String> {
    let limit = |value: i64| u64::try_from(value).ok().filter(|v| *v > 0);
    let quota = limit(limits.cpu_quota)
        .map(|quota| quota.saturating_mul(1_000_000) / limit(limits.cpu_period).unwrap_or(100_000));
    [
        ("CPUWeight", u64::try_from(weight(limits.cpu_shares)).unwrap_or(100)),
        ("CPUQuotaPerSecUSec", quota.unwrap_or(INFINITY)),
        ("MemoryMax", limit(limits.memory_limit).unwrap_or(INFINITY)),
        ("TasksMax", limits.pids_limit.and_then(limit).unwrap_or(INFINITY)),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), "t".to_owned(), value.to_string()])
    .collect()
}

fn call(slice: &str, what: &'static str, arguments: &[String]) -> Result<(), SliceError> {
    let arguments: Vec<&str> = BUS.into_iter().chain(arguments.iter().map(String::as_str)).collect();
    run("busctl", slice, what, &arguments)
}

fn run(program: &str, slice: &str, what: &'static str, arguments: &[&str]) -> Result<(), SliceError> {
    let failed = |cause: String| SliceError { what, slice: slice.to_owned(), cause };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| {
        failed(format!("run {program}: {error}; with systemd's cgroup driver it is needed"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(if said.is_empty() { format!("{program}: {}", output.status) } else { said }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_said_in_systemds_units() {
        let limits = LinuxResources {
            cpu_shares: 1024,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit: 64 << 20,
            ..LinuxResources::default()
        };
        let said = properties(&limits).join(" ");
        let wanted =
            "CPUWeight t 39 CPUQuotaPerSecUSec t 500000 MemoryMax t 67108864 TasksMax t 18446744073709551615";
        assert_eq!(said, wanted);
        let none = properties(&LinuxResources { cpu_shares: 2, ..LinuxResources::default() }).join(" ");
        assert_eq!(none.matches("18446744073709551615").count(), 3, "{none}");
    }
}
