//! What a pod asks for as a whole (`kubelet-static-pods.md 4.5, 5.5`): its containers' resources together, and its own. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::container::is_sidecar;
use crate::quantity::Amount;

/// Beginning of the names of huge pages; the page size follows.
pub const HUGE_PAGES: &str = "hugepages-";

/// Whether resources of this name can be asked for by the pod as a whole.
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE_PAGES)
}

/// The pod's own resources, if it has any.
pub fn pod_level(spec: &PodSpec) -> Option<&ResourceRequirements> {
    let own = spec.resources.as_ref()?;
    let names = |table: &Option<BTreeMap<String, Quantity>>| {
        table.iter().flatten().any(|(name, _)| is_pod_level(name))
    };
    (names(&own.limits) || names(&own.requests)).then_some(own)
}

/// What the pod requests of the node, by resource: cpu in thousandths, everything else in whole units. What it requests
/// as a whole goes before the sum of its containers.
pub fn requests(spec: &PodSpec) -> BTreeMap<String, i64> {
    total(spec, |r| r.requests.as_ref())
}

/// What it is limited to, of those resources that anything of it has a limit of.
pub fn limits(spec: &PodSpec) -> BTreeMap<String, i64> {
    total(spec, |r| r.limits.as_ref())
}

type Table = BTreeMap<String, Quantity>;

fn total(spec: &PodSpec, table: fn(&ResourceRequirements) -> Option<&Table>) -> BTreeMap<String, i64> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let resources = containers.filter_map(|c| c.resources.as_ref()).chain(pod_level(spec));
    let names: BTreeSet<&String> = resources.filter_map(table).flat_map(BTreeMap::keys).collect();
    let of = |resources: Option<&ResourceRequirements>, name: &str| amount(table(resources?)?, name);
    let all = |name: &str| {
        let own = is_pod_level(name).then(|| of(pod_level(spec), name)).flatten();
        let sum = || at_most(spec, |c| Some(of(c.resources.as_ref(), name).unwrap_or(0)));
        own.or_else(sum).unwrap_or(0)
    };
    names.into_iter().map(|name| (name.clone(), all(name))).collect()
}

/// An entry of a table: cpu in thousandths, everything else in whole units.
pub fn amount(table: &Table, name: &str) -> Option<i64> {
    let amount: Amount = table.get(name)?.0.parse().ok()?;
    Some(if name == "cpu" { amount.thousandths() } else { amount.whole() })
}

/// The most that a pod uses at any time: its regular containers with all sidecars, or an init container with the sidecars
/// before it. `None` if one of them has no such number.
pub fn at_most(spec: &PodSpec, of: impl Fn(&Container) -> Option<i64>) -> Option<i64> {
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

/// The limit of huge pages of this name in bytes, however their size is spelled.
pub(super) fn page_limit(resources: Option<&ResourceRequirements>, name: &str) -> i64 {
    let size = |name: &str| name.strip_prefix(HUGE_PAGES)?.parse::<Amount>().ok();
    let table = resources.iter().flat_map(|r| r.limits.iter().flatten());
    let same = table.filter(|(other, _)| size(other).is_some() && size(other) == size(name));
    same.filter_map(|(_, q)| Some(q.0.parse::<Amount>().ok()?.whole())).max().unwrap_or(0)
}

/// The same for all of the pod.
pub(super) fn pod_pages(spec: &PodSpec, name: &str) -> i64 {
    match page_limit(pod_level(spec), name) {
        0 => at_most(spec, |c| Some(page_limit(c.resources.as_ref(), name))).unwrap_or(0),
        own => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> PodSpec {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn a_pod_requests_what_its_containers_do_together_or_what_it_says_itself() {
        let both = "containers: [{name: a, resources: {requests: {cpu: 250m, memory: 1Ki, ephemeral-storage: 5}}}, \
                    {name: b, resources: {requests: {cpu: 1, hugepages-2Mi: 2Mi}}}]";
        let sum = requests(&spec(both));
        let seen: Vec<(&str, i64)> = sum.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        let wanted = [("cpu", 1250), ("ephemeral-storage", 5), ("hugepages-2Mi", 2 << 20), ("memory", 1024)];
        assert_eq!(seen, wanted);
        let own = requests(&spec(&format!("resources: {{requests: {{cpu: 3}}}}\n{both}")));
        assert_eq!((own["cpu"], own["memory"], own["ephemeral-storage"]), (3000, 1024, 5));
    }

    #[test]
    fn pages_of_one_size_are_one_however_it_is_spelled() {
        let of = |text: &str| pod_pages(&spec(text), "hugepages-2Mi");
        let one = |size: &str| format!("{{name: c, resources: {{limits: {{hugepages-{size}: 4Mi}}}}}}");
        assert_eq!(of(&format!("containers: [{}, {}]", one("2Mi"), one("2048Ki"))), 8 << 20);
        assert_eq!(of(&format!("containers: [{}]", one("1Gi"))), 0);
        let own = format!("resources: {{limits: {{hugepages-2Mi: 6Mi}}}}\ncontainers: [{}]", one("2Mi"));
        assert_eq!(of(&own), 6 << 20);
    }
}
