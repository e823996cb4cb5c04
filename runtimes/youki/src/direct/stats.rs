//! Use of resources, read from cgroups, the pods' interfaces and the writable layers. Blocking; changes nothing.

use std::fs;
use std::io;

use podstead_runtime::{ContainerId, ContainerState, ContainerStats, SandboxId, SandboxStats, Time};

use super::records::{ContainerRecord, is_owned};
use super::{Inner, trees};
use crate::cgroup::{Cgroup, Usage};

impl Inner {
    /// Our running containers, their first process and what they use.
    fn running(&self) -> io::Result<Vec<(std::sync::Arc<ContainerRecord>, u32, Usage)>> {
        let mut all = Vec::new();
        for record in self.containers()? {
            if !is_owned(&record.labels, &self.options.owner) {
                continue;
            }
            if let (ContainerState::Running { .. }, pid) = self.state(&record)? {
                let usage = Cgroup::at(&record.cgroup)?.usage();
                all.push((record, pid, usage));
            }
        }
        Ok(all)
    }

    pub(super) fn container_stats(&self) -> io::Result<Vec<ContainerStats>> {
        let stats = |(record, _, usage): (std::sync::Arc<ContainerRecord>, u32, Usage)| {
            let (bytes, inodes) = trees::usage(&self.layout.container(&record.id).join("upper"));
            ContainerStats {
                id: ContainerId(record.id.clone()),
                name: record.name.clone(),
                read_at: Time::now(),
                cpu_nanos: usage.cpu_nanos,
                memory_working_set: usage.working_set,
                memory_usage: usage.memory,
                pids: usage.pids,
                writable_bytes: bytes,
                writable_inodes: inodes,
            }
        };
        Ok(self.running()?.into_iter().map(stats).collect())
    }

    pub(super) fn sandbox_stats(&self) -> io::Result<Vec<SandboxStats>> {
        let running = self.running()?;
        let mut all = Vec::new();
        for (sandbox, _) in self.sandboxes()? {
            if !is_owned(&sandbox.spec.labels, &self.options.owner) {
                continue;
            }
            let mut stats = SandboxStats {
                id: SandboxId(sandbox.id.clone()),
                pod: sandbox.spec.pod.clone(),
                read_at: Time::now(),
                ..SandboxStats::default()
            };
            for (_, pid, usage) in running.iter().filter(|(record, ..)| record.sandbox == sandbox.id) {
                stats.cpu_nanos += usage.cpu_nanos;
                stats.memory_working_set += usage.working_set;
                if !super::pods::is_host_network(&sandbox.spec) {
                    let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
                    (stats.network_rx_bytes, stats.network_tx_bytes) = traffic(&table);
                }
            }
            all.push(stats);
        }
        Ok(all)
    }
}

/// Bytes received and sent by the pod's interface.
fn traffic(table: &str) -> (u64, u64) {
    let line =
        table.lines().find_map(|l| l.trim_start().strip_prefix(crate::network::INTERFACE)?.strip_prefix(':'));
    let mut fields = line.unwrap_or_default().split_ascii_whitespace().map(|f| f.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.nth(7).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_the_pods_interface() {
        let table = "Inter-|   Receive    |  Transmit\n face |bytes packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n\
                     eth0: 100 2 0 0 0 0 0 0 200 3 0 0 0 0 0 0\n";
        assert_eq!(traffic(table), (100, 200));
        assert_eq!(traffic(""), (0, 0));
    }
}
