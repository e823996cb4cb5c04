//! Limits of a container as libcontainer writes them into its cgroup. Pure.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};
use podstead_runtime::LinuxResources as Asked;

use super::NodeFacts;
use super::error::{Blame, Error};

/// The kernel's own period, for a quota that comes without one: cgroup v2 refuses such a quota.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// Limits as libcontainer takes them, without the device rules.
pub fn resources(asked: &Asked, node: &NodeFacts) -> LinuxResources {
    let mut unified: HashMap<String, String> = HashMap::new();
    let mut resources = LinuxResources::default();
    resources.set_cpu(cpu(asked)).set_memory(memory(asked, node, &mut unified));
    resources.set_pids(asked.pids_limit.map(|limit| {
        let mut pids = LinuxPids::default();
        // Not 0 for "no limit": libcgroups makes it 1 on v2.
        pids.set_limit(if limit > 0 { limit } else { -1 });
        pids
    }));
    let huge: Vec<LinuxHugepageLimit> = asked
        .hugepages
        .iter()
        .filter(|(size, _)| node.huge_page_sizes.contains(size))
        .map(|(size, bytes)| {
            let mut limit = LinuxHugepageLimit::default();
            limit.set_page_size(size.clone()).set_limit(i64::try_from(*bytes).unwrap_or(i64::MAX));
            limit
        })
        .collect();
    resources.set_hugepage_limits((!huge.is_empty()).then_some(huge));
    if node.cgroup_v2 {
        unified.extend(asked.unified.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    resources.set_unified((!unified.is_empty()).then_some(unified));
    resources
}

/// As [`resources`], for a container that has limits: negative ones lift what is there, 0 leaves it.
pub fn changed_resources(asked: &Asked, node: &NodeFacts) -> LinuxResources {
    let mut resources = resources(asked, node);
    if asked.cpu_quota < 0 {
        let mut cpu = resources.cpu().clone().unwrap_or_default();
        // The kernel takes "no quota" with a period only, on v2.
        cpu.set_quota(Some(-1)).set_period(Some(DEFAULT_PERIOD_US));
        resources.set_cpu(Some(cpu));
    }
    if asked.memory_limit < 0 {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(-1)).set_swap(node.swap_limits.then_some(-1));
        resources.set_memory(Some(memory));
    }
    resources
}

fn cpu(asked: &Asked) -> Option<LinuxCpu> {
    let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let text = |s: &String| (!s.is_empty()).then(|| s.clone());
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(positive(asked.cpu_shares))
        .set_cpus(text(&asked.cpuset_cpus))
        .set_mems(text(&asked.cpuset_mems));
    if asked.cpu_quota > 0 {
        cpu.set_quota(Some(asked.cpu_quota));
        cpu.set_period(Some(positive(asked.cpu_period).unwrap_or(DEFAULT_PERIOD_US)));
    }
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn memory(asked: &Asked, node: &NodeFacts, unified: &mut HashMap<String, String>) -> Option<LinuxMemory> {
    if asked.memory_limit <= 0 {
        // A limit of swap alone means nothing to the kernel.
        return None;
    }
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(asked.memory_limit));
    if node.swap_limits && asked.memory_swap_limit >= asked.memory_limit {
        if node.cgroup_v2 && asked.memory_swap_limit == asked.memory_limit {
            // "No swap" is 0 in v2, which libcgroups takes for "not set".
            unified.insert("memory.swap.max".to_owned(), "0".to_owned());
        } else {
            memory.set_swap(Some(asked.memory_swap_limit));
        }
    }
    Some(memory)
}

/// The OOM score adjustment, not below what the node's runtime may set; `None` for 0 leaves the shim's, so 0 is
/// always written.
pub(super) fn oom_score_adj(blame: Blame<'_>, asked: &Asked, node: &NodeFacts) -> Result<i32, Error> {
    let adj = i32::try_from(asked.oom_score_adj).ok().filter(|adj| (-1000..=1000).contains(adj)).ok_or_else(
        || blame.invalid(format!("oom_score_adj {}", asked.oom_score_adj), "it goes from -1000 to 1000"),
    )?;
    Ok(node.min_oom_score_adj.map_or(adj, |lowest| adj.max(lowest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2() -> NodeFacts {
        NodeFacts { cgroup_v2: true, swap_limits: true, ..NodeFacts::default() }
    }

    #[test]
    fn a_quota_always_has_a_period_and_a_period_alone_is_dropped() {
        let of = |quota, period| cpu(&Asked { cpu_quota: quota, cpu_period: period, ..Asked::default() });
        let cpu = of(5000, 0).unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(5000), Some(100_000)));
        assert_eq!(of(5000, 20_000).unwrap().period(), Some(20_000));
        assert_eq!((of(0, 20_000), of(-1, 20_000)), (None, None));
    }

    #[test]
    fn only_page_sizes_of_the_node_are_limited() {
        let asked =
            Asked { hugepages: [("2MB".to_owned(), 0), ("1GB".to_owned(), 7)].into(), ..Asked::default() };
        assert_eq!(resources(&asked, &v2()).hugepage_limits(), &None);
        let node = NodeFacts { huge_page_sizes: vec!["1GB".into()], ..v2() };
        let limits = resources(&asked, &node).hugepage_limits().clone().unwrap();
        assert_eq!((limits.len(), limits[0].page_size().as_str(), limits[0].limit()), (1, "1GB", 7));
    }

    #[test]
    fn unified_settings_are_for_v2_only() {
        let asked =
            Asked { unified: [("memory.high".to_owned(), "1".to_owned())].into(), ..Asked::default() };
        assert_eq!(resources(&asked, &NodeFacts::default()).unified(), &None);
        assert!(resources(&asked, &v2()).unified().as_ref().unwrap().contains_key("memory.high"));
    }

    #[test]
    fn swap_is_limited_with_memory_and_where_the_node_can() {
        let asked =
            |memory, swap| Asked { memory_limit: memory, memory_swap_limit: swap, ..Asked::default() };
        let swap = |asked: &Asked, node: &NodeFacts| resources(asked, node).memory().and_then(|m| m.swap());
        assert_eq!(swap(&asked(10, 20), &v2()), Some(20));
        assert_eq!(swap(&asked(10, 20), &NodeFacts::default()), None);
        assert_eq!(swap(&asked(0, 20), &v2()), None);
        assert_eq!(swap(&asked(10, 5), &v2()), None);
        assert_eq!(swap(&asked(10, 10), &v2()), None);
        let unified = resources(&asked(10, 10), &v2()).unified().clone().unwrap();
        assert_eq!(unified["memory.swap.max"], "0");
        assert_eq!(swap(&asked(10, 10), &NodeFacts { cgroup_v2: false, ..v2() }), Some(10));
    }

    #[test]
    fn no_process_limit_is_never_one_process() {
        let limit =
            |n| resources(&Asked { pids_limit: Some(n), ..Asked::default() }, &v2()).pids().unwrap().limit();
        assert_eq!((limit(0), limit(-1), limit(9)), (-1, -1, 9));
    }

    #[test]
    fn oom_scores_are_bounded_by_kernel_and_node() {
        let of = |adj, node: &NodeFacts| {
            oom_score_adj(Blame("c"), &Asked { oom_score_adj: adj, ..Asked::default() }, node)
        };
        let bound = NodeFacts { min_oom_score_adj: Some(0), ..NodeFacts::default() };
        assert_eq!(of(-998, &NodeFacts::default()).unwrap(), -998);
        assert_eq!(of(-998, &bound).unwrap(), 0);
        assert_eq!(of(1000, &bound).unwrap(), 1000);
        assert!(of(1001, &bound).is_err());
    }
}
