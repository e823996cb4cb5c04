//! The cgroups above the pods': `kubepods` and its levels of quality of service (`kubelet-static-pods.md 4.5`). Blocking but
//! for [`keep`]; touches the limits of these cgroups, and makes none.

use std::sync::Arc;

use podstead_runtime::{CgroupDriver, LinuxResources};
use tokio::sync::watch;

use super::cgroup::{CgroupError, Cgroups};
use super::{facts, systemd};
use crate::plan::Desired;
use crate::pod::resources::{QosClass, lift, shares};
use crate::pod::{NodeFacts, identity};
use crate::reconcile::View;

/// What all pods together may use: what the node leaves for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocatable {
    /// Processors in thousandths; 0 for no limit.
    pub cpu: i64,
    /// Memory in bytes; 0 for no limit.
    pub memory: i64,
    /// Processes; 0 for no limit.
    pub pids: i64,
}

impl Allocatable {
    /// What the node leaves: all of it but what is kept back. Memory and processes are limited only where something is.
    pub fn of(node: &NodeFacts) -> Self {
        let kept = |resource: &str| node.reserved.kept(resource);
        let left = |resource: &str, capacity: i64| capacity.saturating_sub(kept(resource)).max(1);
        // A limit of next to nothing would end every pod.
        let limit = |resource: &str, capacity: i64| {
            if kept(resource) > 0 && capacity > kept(resource) { left(resource, capacity) } else { 0 }
        };
        Self {
            cpu: left("cpu", node.cpu_capacity),
            memory: limit("memory", node.memory_capacity),
            pids: limit("pid", facts::process_capacity()),
        }
    }
}

/// The levels' limits, below the node's cgroup root: what the burstable pods request together, and least for those that
/// request nothing.
fn levels(allocatable: Allocatable, burstable: i64) -> [(&'static str, LinuxResources); 3] {
    let shares = |milli| LinuxResources { cpu_shares: shares(milli), ..LinuxResources::default() };
    let all = LinuxResources {
        memory_limit: allocatable.memory,
        pids_limit: Some(if allocatable.pids > 0 { allocatable.pids } else { -1 }),
        ..shares(allocatable.cpu)
    };
    // What was kept back before and is not any more is given back.
    let all = lift(all);
    [("/kubepods", all), ("/kubepods/burstable", shares(burstable)), ("/kubepods/besteffort", shares(0))]
}

/// What the burstable pods request together, in thousandths of a processor.
fn burstable(desired: &Desired) -> i64 {
    let pods = desired.pods.values().filter(|pod| pod.class == QosClass::Burstable.as_str());
    pods.map(|pod| pod.size.cpu).fold(0, i64::saturating_add)
}

/// Sets those that are there.
fn set(node: &NodeFacts, cgroups: &Cgroups, allocatable: Allocatable, burstable: i64) -> Result<(), String> {
    for (below, limits) in levels(allocatable, burstable) {
        let path = format!("{}{below}", node.cgroup_root.trim_end_matches('/'));
        let used = cgroups.memory_usage(&path).unwrap_or(0);
        if limits.memory_limit > 0 && limits.memory_limit < used {
            return Err(format!(
                "{path}: {} bytes of memory are left for pods, which use {used} now; it stays as it is until that fits",
                limits.memory_limit
            ));
        }
        match node.cgroup_driver {
            CgroupDriver::Cgroupfs if cgroups.exists(&path) => {
                cgroups.ensure(&path, &limits).map_err(|error: CgroupError| error.to_string())?;
            }
            CgroupDriver::Systemd if cgroups.exists(&identity::slice_path(&path)) => {
                systemd::ensure(&identity::slice(&path), &limits).map_err(|error| error.to_string())?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sets them whenever what the pods request changes, and when their cgroups may have come.
pub async fn keep(
    node: Arc<NodeFacts>,
    cgroups: Arc<Cgroups>,
    allocatable: Allocatable,
    mut view: watch::Receiver<View>,
) {
    let mut last = None;
    while view.changed().await.is_ok() {
        let now = {
            let view = view.borrow_and_update();
            (burstable(&view.desired), view.known.prepared.len())
        };
        if last.replace(now) == Some(now) {
            continue;
        }
        let (node, cgroups) = (Arc::clone(&node), Arc::clone(&cgroups));
        let done = tokio::task::spawn_blocking(move || set(&node, &cgroups, allocatable, now.0));
        if let Ok(Err(error)) = done.await {
            tracing::warn!("cannot limit the levels of pods: {error}");
            // Once more with the next round.
            last = None;
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::capacity::Reservations;
    use crate::plan::{Pod, Size};

    #[test]
    fn all_pods_together_have_what_is_not_kept_back() {
        let kube =
            [("cpu", 500), ("memory", 1 << 20), ("pid", 10)].map(|(name, n)| (name.to_owned(), n)).into();
        let reserved = Reservations { kube, ..Reservations::default() };
        let mut node =
            NodeFacts { cpu_capacity: 2000, memory_capacity: 3 << 20, reserved, ..NodeFacts::default() };
        let all = Allocatable::of(&node);
        assert_eq!((all.cpu, all.memory, all.pids), (1500, 2 << 20, facts::process_capacity() - 10));
        node.reserved = Reservations::default();
        assert_eq!(Allocatable::of(&node), Allocatable { cpu: 2000, memory: 0, pids: 0 });
    }

    #[test]
    fn a_level_has_what_its_pods_request_together() {
        let pod = |class: &str, cpu| Pod {
            class: class.to_owned(),
            size: Size { cpu, ..Size::default() },
            ..Pod::default()
        };
        let pods =
            [("a", pod("Burstable", 500)), ("b", pod("Burstable", 1500)), ("c", pod("Guaranteed", 9000))];
        let pods = pods.into_iter().map(|(uid, pod)| (uid.into(), pod)).collect();
        assert_eq!(burstable(&Desired { pods, complete: true, room: None }), 2000);
        let allocatable = Allocatable { cpu: 4000, memory: 5, pids: 0 };
        let said: Vec<_> =
            levels(allocatable, 2000).into_iter().map(|(_, l)| (l.cpu_shares, l.memory_limit)).collect();
        assert_eq!(said, [(4096, 5), (2048, 0), (2, 0)]);
    }
}
