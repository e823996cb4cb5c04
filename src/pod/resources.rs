//! Resources of a pod as the kernel wants them: QoS class, shares, quota, OOM score (`kubelet-static-pods.md 4.5`). Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec};
use podstead_runtime::LinuxResources;

use super::container::is_sidecar;
use crate::quantity::Amount;

/// CFS period in microseconds.
pub const CPU_PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA: i64 = 1000;

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

/// One container's numbers: cpu in thousandths, memory in bytes; `None` where the manifest is silent.
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
    let resources = container.resources.as_ref();
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

fn all(spec: &PodSpec) -> impl Iterator<Item = Numbers> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(numbers)
}

/// The pod's class.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let set = |n: Numbers| n.cpu_request.max(n.memory_request).is_some_and(|n| n > 0);
    let guaranteed = |n: Numbers| {
        let equal = |request: Option<i64>, limit: Option<i64>| limit.is_some() && request == limit;
        equal(n.cpu_request, n.cpu_limit) && equal(n.memory_request, n.memory_limit)
    };
    if all(spec).all(guaranteed) && all(spec).next().is_some() {
        QosClass::Guaranteed
    } else if all(spec).any(set) {
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

/// A container's resources, on a node with `capacity` bytes of memory.
pub fn container(spec: &PodSpec, container: &Container, capacity: i64) -> LinuxResources {
    let n = numbers(container);
    LinuxResources {
        cpu_period: n.cpu_limit.map_or(0, |_| CPU_PERIOD),
        cpu_quota: n.cpu_limit.map_or(0, quota),
        cpu_shares: shares(n.cpu_request.unwrap_or(0)),
        memory_limit: n.memory_limit.unwrap_or(0),
        oom_score_adj: oom_score(spec, n, capacity),
        ..LinuxResources::default()
    }
}

fn oom_score(spec: &PodSpec, n: Numbers, capacity: i64) -> i64 {
    if spec.priority_class_name.as_deref() == Some("system-node-critical") {
        return -997;
    }
    match qos_class(spec) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let part = i128::from(n.memory_request.unwrap_or(0)) * 1000 / i128::from(capacity.max(1));
            let score = 1000 - i64::try_from(part).unwrap_or(1000);
            if score == 1000 { 999 } else { score.max(3) }
        }
    }
}

/// The limits of the pod's own cgroup: shares always, quota and memory only when every container has them.
pub fn pod(spec: &PodSpec) -> LinuxResources {
    let cpu_limit = at_most(spec, |n| n.cpu_limit);
    LinuxResources {
        cpu_shares: shares(at_most(spec, |n| Some(n.cpu_request.unwrap_or(0))).unwrap_or(0)),
        cpu_period: cpu_limit.map_or(0, |_| CPU_PERIOD),
        cpu_quota: cpu_limit.map_or(0, quota),
        memory_limit: at_most(spec, |n| n.memory_limit).unwrap_or(0),
        ..LinuxResources::default()
    }
}

/// The most that a pod uses at any time: its regular containers with all sidecars, or an init container with the sidecars
/// before it. `None` if one of them has no such number.
fn at_most(spec: &PodSpec, of: impl Fn(&Numbers) -> Option<i64>) -> Option<i64> {
    most(spec, |container| of(&numbers(container)))
}

fn most(spec: &PodSpec, of: impl Fn(&Container) -> Option<i64>) -> Option<i64> {
    let (mut sidecars, mut most) = (0_i64, 0_i64);
    for container in spec.init_containers.iter().flatten() {
        let own = of(container)?;
        if is_sidecar(container) {
            sidecars = sidecars.saturating_add(own);
        } else {
            most = most.max(sidecars.saturating_add(own));
        }
    }
    let mut regular = sidecars;
    for container in &spec.containers {
        regular = regular.saturating_add(of(container)?);
    }
    Some(most.max(regular))
}

/// What the pod asks of the node at any time, in the node's units (`cpu` in thousandths, all else whole): the resources that
/// a node has by itself. Of others it has none to give, and a kubelet passes over them (`kubelet-static-pods.md 5.5`).
pub fn requests(spec: &PodSpec) -> BTreeMap<String, i64> {
    let native =
        |name: &str| matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let of = |container: &Container, name: &str| {
        let text = container.resources.as_ref().and_then(|r| r.requests.as_ref()?.get(name));
        let amount = text.and_then(|text| text.0.parse::<Amount>().ok());
        amount.map_or(0, |a| if name == "cpu" { a.thousandths() } else { a.whole() })
    };
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let named = all.flat_map(|c| c.resources.iter().flat_map(|r| r.requests.iter().flatten()));
    let names: BTreeSet<&String> = named.map(|(name, _)| name).filter(|name| native(name)).collect();
    let sum = |name: &String| Some((name.clone(), most(spec, |c| Some(of(c, name)))?));
    names.into_iter().filter_map(sum).filter(|(_, amount)| *amount > 0).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::ResourceRequirements;
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

    #[test]
    fn limits_of_both_make_a_pod_guaranteed() {
        let spec = pod_of(&[("cpu", "500m"), ("memory", "64Mi")], &[]);
        assert_eq!(qos_class(&spec), QosClass::Guaranteed);
        let r = container(&spec, &spec.containers[0], 8 << 30);
        assert_eq!((r.cpu_shares, r.cpu_quota, r.cpu_period), (512, 50_000, 100_000));
        assert_eq!((r.memory_limit, r.oom_score_adj), (64 << 20, -997));
        assert_eq!((pod(&spec).memory_limit, pod(&spec).cpu_quota), (64 << 20, 50_000));
    }

    #[test]
    fn a_smaller_request_makes_it_burstable() {
        let spec = pod_of(&[("memory", "2Gi")], &[("memory", "1Gi")]);
        assert_eq!(qos_class(&spec), QosClass::Burstable);
        let r = container(&spec, &spec.containers[0], 8 << 30);
        assert_eq!((r.oom_score_adj, r.cpu_shares, r.cpu_period), (875, 2, 0));
    }

    #[test]
    fn nothing_asked_is_best_effort() {
        let spec = pod_of(&[], &[]);
        assert_eq!(qos_class(&spec), QosClass::BestEffort);
        assert_eq!(container(&spec, &spec.containers[0], 8 << 30).oom_score_adj, 1000);
        assert_eq!(pod(&spec).memory_limit, 0);
    }

    #[test]
    fn a_pod_asks_for_the_most_that_it_uses_at_any_time() {
        let one = |more: &str, cpu: &str, memory: &str| -> Container {
            let requests = format!("requests: {{cpu: {cpu}, memory: {memory}, example.com/gpu: 1}}");
            serde_yaml::from_str(&format!("{{name: c, {more} resources: {{{requests}}}}}")).unwrap()
        };
        let mut spec =
            PodSpec { containers: vec![one("", "100m", "1Mi"), one("", "1", "2Mi")], ..PodSpec::default() };
        let asked = |spec: &PodSpec| requests(spec).into_values().collect::<Vec<_>>();
        assert_eq!(requests(&spec), [("cpu".to_owned(), 1100), ("memory".to_owned(), 3 << 20)].into());
        spec.init_containers = Some(vec![one("restartPolicy: Always,", "50m", "1Mi"), one("", "1", "9Mi")]);
        assert_eq!(asked(&spec), [1150, 10 << 20], "an init container beside the sidecar before it");
        assert_eq!(requests(&PodSpec::default()), BTreeMap::new());
    }

    #[test]
    fn a_zero_counts_as_nothing() {
        let spec = pod_of(&[("cpu", "0"), ("memory", "0")], &[("cpu", "0")]);
        assert_eq!(qos_class(&spec), QosClass::BestEffort);
        let r = container(&spec, &spec.containers[0], 8 << 30);
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
        assert_eq!(container(&spec, &spec.containers[0], 8 << 30).oom_score_adj, -997);
    }

    #[test]
    fn no_score_of_a_burstable_pod_reaches_that_of_another_class() {
        for (request, score) in [("1", 999), ("7Gi", 125), ("8Gi", 3), ("80Gi", 3)] {
            let spec = pod_of(&[], &[("memory", request)]);
            assert_eq!(container(&spec, &spec.containers[0], 8 << 30).oom_score_adj, score, "{request}");
        }
    }

    #[test]
    fn a_tiny_limit_keeps_the_kernels_minimum_quota() {
        assert_eq!(quota(1), 1000);
        assert_eq!(shares(0), 2);
    }
}
