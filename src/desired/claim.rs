//! What a pod takes of the node, and who it goes before (`kubelet-static-pods.md 5.5`). Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ContainerPort, Pod, PodSpec};
use podstead_runtime::{Time, labels};

use crate::plan;
use crate::pod::container::is_sidecar;
use crate::pod::priority::is_critical;
use crate::pod::requests;
use crate::pod::resources::{self, QosClass};

/// What the pod takes: requests, and ports of the node.
pub fn claim(pod: &Pod) -> plan::Claim {
    let Some(spec) = &pod.spec else { return plan::Claim::default() };
    plan::Claim { requests: requests(spec), ports: ports(spec) }
}

/// The resources that a node has by itself. Of others it has none to give, and a kubelet passes over them.
fn requests(spec: &PodSpec) -> BTreeMap<String, i64> {
    let native = |name: &str| {
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with(requests::HUGE_PAGES)
    };
    let all = requests::requests(spec).into_iter();
    all.filter(|(name, amount)| native(name) && *amount > 0).collect()
}

/// Ports of what runs beside each other: regular containers and sidecars.
fn ports(spec: &PodSpec) -> BTreeSet<plan::HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let all = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    all.filter_map(port).collect()
}

fn port(port: &ContainerPort) -> Option<plan::HostPort> {
    let number = u16::try_from(port.host_port?).ok().filter(|n| *n != 0)?;
    let ip = port.host_ip.as_deref().unwrap_or_default();
    Some(plan::HostPort {
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        ip: ip.parse().ok().filter(|_| ip != "0.0.0.0"),
        port: number,
    })
}

/// Who it goes before when there is not room for all.
pub fn rank(pod: &Pod) -> plan::Rank {
    let spec = pod.spec.as_ref();
    let seen = pod.metadata.annotations.as_ref().and_then(|all| all.get(labels::CONFIG_SEEN));
    let seen = seen.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    plan::Rank {
        critical: spec.is_some_and(is_critical),
        qos: match spec.map_or(QosClass::BestEffort, resources::qos_class) {
            QosClass::BestEffort => plan::Qos::BestEffort,
            QosClass::Burstable => plan::Qos::Burstable,
            QosClass::Guaranteed => plan::Qos::Guaranteed,
        },
        arrived: seen.and_then(|at| i64::try_from(at.as_nanosecond()).ok()).map_or(Time(0), Time),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Container;

    use super::*;

    fn pod(text: &str) -> Pod {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn ports_are_those_of_what_runs_beside_each_other() {
        let pod = pod(
            "spec: {containers: [{name: a, ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 1}]}, {name: b, \
             ports: [{containerPort: 53, hostPort: 53, protocol: UDP, hostIP: 10.0.0.1}, {containerPort: 9, hostPort: 9, \
             hostIP: 0.0.0.0}]}], initContainers: [{name: i, ports: [{containerPort: 1, hostPort: 1}]}, {name: s, \
             restartPolicy: Always, ports: [{containerPort: 2, hostPort: 2}]}]}",
        );
        let text = claim(&pod).to_string();
        assert_eq!(text, "port=TCP/2 port=TCP/9 port=TCP/8080 port=UDP/10.0.0.1/53");
    }

    #[test]
    fn two_classes_and_high_priorities_are_critical() {
        for (spec, critical) in [
            ("priorityClassName: system-node-critical", true),
            ("priorityClassName: system-cluster-critical", true),
            ("priority: 2000000000", true),
            ("priority: 1999999999", false),
            ("priorityClassName: high", false),
            ("restartPolicy: Always", false),
        ] {
            assert_eq!(
                rank(&pod(&format!("spec: {{{spec}, containers: [{{name: c}}]}}"))).critical,
                critical,
                "{spec}"
            );
        }
    }

    #[test]
    fn a_pod_came_when_it_was_first_seen() {
        let seen = pod("metadata: {annotations: {kubernetes.io/config.seen: \"1970-01-01T00:00:07Z\"}}");
        assert_eq!(rank(&seen).arrived, Time::from_secs(7));
        assert_eq!(rank(&Pod::default()).arrived, Time(0));
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
}
