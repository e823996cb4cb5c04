//! The API's defaults for a pod's own resources (`spec.resources`), once its containers have theirs. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::requests::{self, HUGE_PAGES};

/// Limits of huge pages are those of the containers together; then what is limited and not requested is requested as the
/// containers do together, else as it is limited.
pub(super) fn pod(spec: &mut PodSpec) {
    let without = PodSpec { resources: None, ..spec.clone() };
    let Some(own) = spec.resources.as_mut() else { return };
    let given = |table: &Option<BTreeMap<_, _>>| table.as_ref().is_some_and(|table| !table.is_empty());
    if !given(&own.limits) && !given(&own.requests) {
        return;
    }
    let requested = own.requests.clone().unwrap_or_default();
    for (name, amount) in requests::limits(&without).iter().filter(|(name, _)| name.starts_with(HUGE_PAGES)) {
        if !requested.contains_key(name) {
            let limits = own.limits.get_or_insert_default();
            limits.entry(name.clone()).or_insert_with(|| quantity(name, *amount));
        }
    }
    let Some(limits) = own.limits.clone().filter(|limits| !limits.is_empty()) else { return };
    let table = own.requests.get_or_insert_default();
    let together = requests::requests(&without);
    let shared = together.iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"));
    for (name, amount) in shared {
        table.entry(name.clone()).or_insert_with(|| quantity(name, *amount));
    }
    for (name, limit) in limits.into_iter().filter(|(name, _)| requests::is_pod_level(name)) {
        table.entry(name).or_insert(limit);
    }
}

/// In the API's canonical form, as far as it is short.
fn quantity(name: &str, amount: i64) -> Quantity {
    let whole = |unit: i64| amount != 0 && amount % unit == 0;
    Quantity(match name {
        "cpu" if whole(1000) => (amount / 1000).to_string(),
        "cpu" => format!("{amount}m"),
        _ if whole(1 << 30) => format!("{}Gi", amount >> 30),
        _ if whole(1 << 20) => format!("{}Mi", amount >> 20),
        _ if whole(1 << 10) => format!("{}Ki", amount >> 10),
        _ => amount.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaulted(own: &str, containers: &str) -> String {
        let text = format!("resources: {own}\ncontainers: {containers}");
        let mut spec: PodSpec = serde_yaml::from_str(&text).unwrap();
        pod(&mut spec);
        let own = spec.resources.unwrap();
        let told = |table: Option<BTreeMap<String, Quantity>>| {
            let all = table.into_iter().flatten().map(|(name, q)| format!("{name}={}", q.0));
            all.collect::<Vec<_>>().join(" ")
        };
        format!("{} / {}", told(own.requests), told(own.limits))
    }

    #[test]
    fn what_a_pod_limits_and_does_not_request_is_its_containers_sum_or_its_limit() {
        let two =
            "[{name: a, resources: {requests: {cpu: 250m}}}, {name: b, resources: {requests: {cpu: 750m}}}]";
        assert_eq!(defaulted("{limits: {cpu: 2, memory: 1Gi}}", two), "cpu=1 memory=1Gi / cpu=2 memory=1Gi");
        assert_eq!(defaulted("{requests: {memory: 1Mi}}", two), "memory=1Mi / ");
        assert_eq!(defaulted("{}", two), " / ");
    }

    #[test]
    fn huge_pages_of_containers_are_the_pods() {
        let one = "[{name: a, resources: {limits: {hugepages-2Mi: 4Mi, memory: 1Mi}, requests: {hugepages-2Mi: 4Mi, \
                   memory: 1Mi}}}]";
        let seen = defaulted("{requests: {memory: 2Mi}}", one);
        assert_eq!(seen, "hugepages-2Mi=4Mi memory=2Mi / hugepages-2Mi=4Mi");
    }
}
