//! Resources of a pod as the kernel wants them: QoS class, shares, quota, OOM score (`kubelet-static-pods.md 4.5`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use podstead_runtime::LinuxResources;

use super::NodeFacts;
use super::container::is_sidecar;
use super::requests::{self, HUGE_PAGES};
use crate::plan::Size;
use crate::quantity::{Amount, BINARY, whole_in};

/// CFS period in microseconds.
pub const CPU_PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA: i64 = 1000;

/// What of the node and its flags decides about limits.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Sizes in bytes of the huge pages that the node has.
    pub huge_pages: Vec<u64>,
    /// Processes and threads of a pod (`--pod-max-pids`); `None` for any number.
    pub pids_limit: Option<i64>,
    /// A container that runs out of memory ends as a whole: cgroup v2, without `--single-process-oom-kill`.
    pub oom_group: bool,
    /// The kernel can keep containers from swapping: cgroup v2 with its swap controller.
    pub swap: bool,
}

/// The pod's quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QosClass {
    /// Every container has limits of cpu and memory, and no smaller requests.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl QosClass {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class that a pod's cgroup path is of.
pub fn class_of(cgroup: &str) -> Option<QosClass> {
    let (parent, _) = cgroup.rsplit_once("/pod")?;
    match parent.rsplit('/').next()? {
        "kubepods" => Some(QosClass::Guaranteed),
        "burstable" => Some(QosClass::Burstable),
        "besteffort" => Some(QosClass::BestEffort),
        _ => None,
    }
}

/// One container's numbers, or a pod's: cpu in thousandths, memory in bytes; `None` where the manifest is silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Requested cpu (a limit without a request counts as both).
    pub cpu_request: Option<i64>,
    /// Limit of cpu.
    pub cpu_limit: Option<i64>,
    /// Requested memory.
    pub memory_request: Option<i64>,
    /// Limit of memory.
    pub memory_limit: Option<i64>,
}

/// A container's numbers. A text that is no quantity counts as absent: admission has refused it before.
pub fn numbers(container: &Container) -> Numbers {
    read(container.resources.as_ref())
}

fn read(resources: Option<&ResourceRequirements>) -> Numbers {
    let read = |limits: bool, name: &str| {
        let table = if limits { resources?.limits.as_ref()? } else { resources?.requests.as_ref()? };
        table.get(name)?.0.parse::<Amount>().ok()
    };
    // A limit of 0 limits nothing.
    let cpu_limit = read(true, "cpu").map(Amount::thousandths).filter(|n| *n > 0);
    let memory_limit = read(true, "memory").map(Amount::whole).filter(|n| *n > 0);
    Numbers {
        cpu_request: read(false, "cpu").map(Amount::thousandths).or(cpu_limit),
        cpu_limit,
        memory_request: read(false, "memory").map(Amount::whole).or(memory_limit),
        memory_limit,
    }
}

fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

/// The pod's class: of its own resources if it has any, else of its containers'.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let set = |n: &Numbers| n.cpu_request.max(n.memory_request).is_some_and(|n| n > 0);
    let guaranteed = |n: &Numbers| {
        let equal = |request: Option<i64>, limit: Option<i64>| limit.is_some() && request == limit;
        equal(n.cpu_request, n.cpu_limit) && equal(n.memory_request, n.memory_limit)
    };
    let numbers: Vec<Numbers> = match requests::pod_level(spec) {
        Some(own) => vec![read(Some(own))],
        None => all(spec).map(numbers).collect(),
    };
    if !numbers.is_empty() && numbers.iter().all(guaranteed) {
        QosClass::Guaranteed
    } else if numbers.iter().any(set) {
        QosClass::Burstable
    } else {
        QosClass::BestEffort
    }
}

/// CPU shares of a request in thousandths.
pub fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CFS quota of a limit in thousandths.
pub fn quota(milli: i64) -> i64 {
    (milli.saturating_mul(CPU_PERIOD) / 1000).max(MIN_QUOTA)
}

/// What a container may use: where it has no limit of its own, the pod's holds.
pub fn size(spec: &PodSpec, container: &Container) -> Size {
    let (own, pods) = (numbers(container), read(requests::pod_level(spec)));
    let cpu_limit = own.cpu_limit.or(pods.cpu_limit);
    Size {
        cpu: own.cpu_request.or(cpu_limit).unwrap_or(0),
        cpu_limit: cpu_limit.unwrap_or(0),
        memory: own.memory_request.unwrap_or(0),
        memory_limit: own.memory_limit.or(pods.memory_limit).unwrap_or(0),
    }
}

/// What the pod's own cgroup may use: limits only where the pod has them, or every container does.
pub fn pod_size(spec: &PodSpec) -> Size {
    let own = read(requests::pod_level(spec));
    let asked = |pods: Option<i64>, of: fn(&Numbers) -> Option<i64>| {
        pods.or_else(|| requests::at_most(spec, |c| Some(of(&numbers(c)).unwrap_or(0)))).unwrap_or(0)
    };
    let limit = |pods: Option<i64>, of: fn(&Numbers) -> Option<i64>| {
        pods.or_else(|| requests::at_most(spec, |c| of(&numbers(c)))).unwrap_or(0)
    };
    Size {
        cpu: asked(own.cpu_request, |n| n.cpu_request),
        cpu_limit: limit(own.cpu_limit, |n| n.cpu_limit),
        memory: asked(own.memory_request, |n| n.memory_request),
        memory_limit: limit(own.memory_limit, |n| n.memory_limit),
    }
}

/// A size in the kernel's terms.
pub fn limits(size: Size) -> LinuxResources {
    LinuxResources {
        cpu_period: if size.cpu_limit > 0 { CPU_PERIOD } else { 0 },
        cpu_quota: if size.cpu_limit > 0 { quota(size.cpu_limit) } else { 0 },
        cpu_shares: shares(size.cpu),
        memory_limit: size.memory_limit,
        ..LinuxResources::default()
    }
}

/// A container's resources.
pub fn container(node: &NodeFacts, spec: &PodSpec, container: &Container) -> LinuxResources {
    let facts = &node.resources;
    let mut unified = BTreeMap::new();
    if facts.oom_group {
        unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    if facts.swap {
        unified.insert("memory.swap.max".to_owned(), "0".to_owned());
    }
    LinuxResources {
        oom_score_adj: oom_score(spec, container, node.memory_capacity),
        hugepages: huge_pages(facts, |name| container_huge_pages(spec, container, name)),
        unified,
        ..limits(size(spec, container))
    }
}

/// The same for one that runs: what is not limited any more is lifted.
pub fn resized(node: &NodeFacts, spec: &PodSpec, container: &Container) -> LinuxResources {
    lift(self::container(node, spec, container))
}

/// Says of what is not limited that it is not.
pub fn lift(mut limits: LinuxResources) -> LinuxResources {
    for limit in [&mut limits.cpu_quota, &mut limits.memory_limit] {
        if *limit == 0 {
            *limit = -1;
        }
    }
    limits
}

/// Suffixes of 1024 in the kernel's names of page sizes.
const KERNEL_UNITS: [&str; 4] = ["B", "KB", "MB", "GB"];

/// Limits of every size of page that the node has: 0 for those that nobody asks for.
fn huge_pages(facts: &Facts, of: impl Fn(&str) -> i64) -> BTreeMap<String, u64> {
    let limit = |size: &u64| {
        let size = i64::try_from(*size).unwrap_or(i64::MAX);
        let name = format!("{HUGE_PAGES}{}", whole_in(size, BINARY));
        (whole_in(size, &KERNEL_UNITS), u64::try_from(of(&name)).unwrap_or(0))
    };
    facts.huge_pages.iter().map(limit).collect()
}

/// A container without limits of huge pages has the pod's.
fn container_huge_pages(spec: &PodSpec, container: &Container, name: &str) -> i64 {
    let own = container.resources.as_ref();
    let has_any = own.iter().flat_map(|r| r.limits.iter().flatten()).any(|(n, _)| n.starts_with(HUGE_PAGES));
    let from = if has_any { own } else { requests::pod_level(spec) };
    // The same page size may be spelled otherwise (`1024Ki`).
    requests::page_limit(from, name)
}

fn oom_score(spec: &PodSpec, container: &Container, capacity: i64) -> i64 {
    if spec.priority_class_name.as_deref() == Some("system-node-critical") {
        return -997;
    }
    match qos_class(spec) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let asked = |c: &Container| numbers(c).memory_request.unwrap_or(0);
            let mut memory = asked(container);
            // A sidecar is not killed before those it serves.
            let init = spec.init_containers.iter().flatten();
            if is_sidecar(container) && init.into_iter().any(|c| c.name == container.name) {
                memory = memory.max(spec.containers.iter().map(asked).min().unwrap_or(0));
            }
            let memory = memory.saturating_add(share_of_the_rest(spec));
            let part = i128::from(memory) * 1000 / i128::from(capacity.max(1));
            let score = 1000 - i64::try_from(part).unwrap_or(1000);
            if score == 1000 { 999 } else { score.max(3) }
        }
    }
}

/// What the pod requests and no container does is everybody's in equal parts.
fn share_of_the_rest(spec: &PodSpec) -> i64 {
    let Some(pods) = read(requests::pod_level(spec)).memory_request else { return 0 };
    let of_containers = requests::at_most(spec, |c| Some(numbers(c).memory_request.unwrap_or(0)));
    let count = i64::try_from(all(spec).count()).unwrap_or(1).max(1);
    pods.saturating_sub(of_containers.unwrap_or(0)).max(0) / count
}

/// The limits of the pod's own cgroup.
pub fn pod(spec: &PodSpec) -> LinuxResources {
    limits(pod_size(spec))
}

/// The same for a pod of this size, with all that the node limits besides.
pub fn pod_cgroup(node: &NodeFacts, spec: &PodSpec, size: Size) -> LinuxResources {
    LinuxResources {
        // Without a limit, one of before goes.
        pids_limit: node.resources.pids_limit.or(Some(-1)),
        hugepages: huge_pages(&node.resources, |name| requests::pod_pages(spec, name)),
        ..limits(size)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

    use super::*;

    fn table(entries: &[(&str, &str)]) -> BTreeMap<String, Text> {
        entries.iter().map(|(k, v)| ((*k).to_owned(), Text((*v).to_owned()))).collect()
    }

    fn pod_of(limits: &[(&str, &str)], requests: &[(&str, &str)]) -> PodSpec {
        let (limits, requests) = (Some(table(limits)), Some(table(requests)));
        let resources = ResourceRequirements { limits, requests, ..ResourceRequirements::default() };
        let container = Container { resources: Some(resources), ..Container::default() };
        PodSpec { containers: vec![container], ..PodSpec::default() }
    }

    fn made(spec: &PodSpec) -> LinuxResources {
        let node = NodeFacts { memory_capacity: 8 << 30, ..NodeFacts::default() };
        container(&node, spec, &spec.containers[0])
    }

    #[test]
    fn limits_of_both_make_a_pod_guaranteed() {
        let spec = pod_of(&[("cpu", "500m"), ("memory", "64Mi")], &[]);
        assert_eq!(qos_class(&spec), QosClass::Guaranteed);
        let r = made(&spec);
        assert_eq!((r.cpu_shares, r.cpu_quota, r.cpu_period), (512, 50_000, 100_000));
        assert_eq!((r.memory_limit, r.oom_score_adj), (64 << 20, -997));
        assert_eq!((pod(&spec).memory_limit, pod(&spec).cpu_quota), (64 << 20, 50_000));
    }

    #[test]
    fn a_smaller_request_makes_it_burstable() {
        let spec = pod_of(&[("memory", "2Gi")], &[("memory", "1Gi")]);
        assert_eq!(qos_class(&spec), QosClass::Burstable);
        let r = made(&spec);
        assert_eq!((r.oom_score_adj, r.cpu_shares, r.cpu_period), (875, 2, 0));
    }

    #[test]
    fn nothing_asked_is_best_effort() {
        let spec = pod_of(&[], &[]);
        assert_eq!(qos_class(&spec), QosClass::BestEffort);
        assert_eq!(made(&spec).oom_score_adj, 1000);
        assert_eq!(pod(&spec).memory_limit, 0);
    }

    #[test]
    fn a_zero_counts_as_nothing() {
        let spec = pod_of(&[("cpu", "0"), ("memory", "0")], &[("cpu", "0")]);
        assert_eq!(qos_class(&spec), QosClass::BestEffort);
        let r = made(&spec);
        assert_eq!((r.cpu_quota, r.cpu_shares, r.memory_limit), (0, 2, 0));
    }

    #[test]
    fn a_pods_cgroup_holds_its_sidecars_and_its_largest_init_container() {
        let one = |memory: &str| pod_of(&[("cpu", "100m"), ("memory", memory)], &[]).containers.remove(0);
        let sidecar = Container { restart_policy: Some("Always".into()), ..one("256Mi") };
        let mut spec = PodSpec { containers: vec![one("256Mi")], ..PodSpec::default() };
        spec.init_containers = Some(vec![sidecar.clone(), one("64Mi")]);
        assert_eq!((pod(&spec).memory_limit, pod(&spec).cpu_quota), (512 << 20, 20_000));
        spec.init_containers = Some(vec![one("2Gi"), sidecar.clone()]);
        assert_eq!((pod(&spec).memory_limit, pod(&spec).cpu_shares), (2 << 30, shares(200)));
        spec.init_containers = Some(vec![sidecar, one("2Gi")]);
        assert_eq!(pod(&spec).memory_limit, (2 << 30) + (256 << 20));
        spec.init_containers = Some(vec![Container::default()]);
        assert_eq!((pod(&spec).memory_limit, pod(&spec).cpu_quota), (0, 0), "one without a limit");
    }

    #[test]
    fn a_pods_cgroup_is_limited_only_when_every_container_is() {
        let mut spec = pod_of(&[("cpu", "1"), ("memory", "1Gi")], &[]);
        spec.containers.push(Container::default());
        assert_eq!((pod(&spec).cpu_quota, pod(&spec).memory_limit, pod(&spec).cpu_shares), (0, 0, 1024));
        spec.containers.pop();
        spec.containers.push(spec.containers[0].clone());
        assert_eq!((pod(&spec).cpu_quota, pod(&spec).memory_limit), (200_000, 2 << 30));
    }

    #[test]
    fn the_node_critical_class_is_protected_like_a_guaranteed_pod() {
        let mut spec = pod_of(&[], &[]);
        spec.priority_class_name = Some("system-node-critical".into());
        assert_eq!(made(&spec).oom_score_adj, -997);
    }

    #[test]
    fn no_score_of_a_burstable_pod_reaches_that_of_another_class() {
        for (request, score) in [("1", 999), ("7Gi", 125), ("8Gi", 3), ("80Gi", 3)] {
            let spec = pod_of(&[], &[("memory", request)]);
            assert_eq!(made(&spec).oom_score_adj, score, "{request}");
        }
    }

    #[test]
    fn a_tiny_limit_keeps_the_kernels_minimum_quota() {
        assert_eq!(quota(1), 1000);
        assert_eq!(shares(0), 2);
    }
}
