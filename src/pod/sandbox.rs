//! Pod -> [`SandboxSpec`] (`kubelet-static-pods.md 2.8`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use podstead_runtime::{LinuxResources, PortMapping, Protocol, SandboxSpec, labels};

use super::{NodeFacts, identity, resources, security, sysctl};

/// The sandbox of a pod's `attempt`.
pub fn sandbox_spec(node: &NodeFacts, pod: &Pod, attempt: u32) -> SandboxSpec {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let id = identity::identity(pod);
    let mut all_labels: BTreeMap<String, String> = pod.metadata.labels.clone().unwrap_or_default();
    all_labels.insert(labels::POD_NAME.to_owned(), id.name.clone());
    all_labels.insert(labels::POD_NAMESPACE.to_owned(), id.namespace.clone());
    all_labels.insert(labels::POD_UID.to_owned(), id.uid.0.clone());
    let sum = resources::pod(spec);
    SandboxSpec {
        attempt,
        hostname: identity::hostname(pod),
        log_directory: identity::log_dir(node, &id),
        dns: None,
        port_mappings: port_mappings(spec),
        labels: all_labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: identity::cgroup_parent(node, pod),
        sysctls: sysctls(spec),
        security: security::sandbox(spec),
        overhead: Some(LinuxResources::default()),
        resources: Some(sum),
        pod: id,
        ..SandboxSpec::default()
    }
}

fn sysctls(spec: &PodSpec) -> BTreeMap<String, String> {
    let all = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    all.map(|s| (sysctl::normalize(&s.name), s.value.clone())).collect()
}

fn port_mappings(spec: &PodSpec) -> Vec<PortMapping> {
    let ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
    ports
        .map(|port| PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            container_port: u16::try_from(port.container_port).unwrap_or(0),
            host_port: port.host_port.and_then(|p| u16::try_from(p).ok()).unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use podstead_runtime::NamespaceMode;

    use super::*;

    fn pod(text: &str) -> Pod {
        let mut pod: Pod = serde_yaml::from_str(text).unwrap();
        pod.metadata.name = Some("web-node".into());
        pod.metadata.namespace = Some("default".into());
        pod.metadata.uid = Some("u1".into());
        pod
    }

    #[test]
    fn a_sandbox_bears_the_pods_labels_and_the_kubelets() {
        let node = NodeFacts { pod_logs_dir: "/var/log/pods".into(), ..NodeFacts::default() };
        let pod = pod("metadata: {labels: {role: myrole}, annotations: {a: b}}\nspec: {containers: []}");
        let spec = sandbox_spec(&node, &pod, 2);
        let labels: Vec<(&str, &str)> = spec.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected = [
            ("io.kubernetes.pod.name", "web-node"),
            ("io.kubernetes.pod.namespace", "default"),
            ("io.kubernetes.pod.uid", "u1"),
            ("role", "myrole"),
        ];
        assert_eq!(labels, expected);
        assert_eq!((spec.attempt, spec.hostname.as_str()), (2, "web-node"));
        assert_eq!(spec.log_directory, std::path::Path::new("/var/log/pods/default_web-node_u1"));
        assert_eq!(spec.annotations["a"], "b");
        assert_eq!(spec.security.namespaces.network, NamespaceMode::Pod);
    }

    #[test]
    fn on_the_nodes_network_a_sandbox_has_no_host_name() {
        let spec = sandbox_spec(&NodeFacts::default(), &pod("spec: {hostNetwork: true, containers: []}"), 0);
        assert_eq!((spec.hostname.as_str(), spec.security.namespaces.network), ("", NamespaceMode::Node));
    }

    #[test]
    fn kernel_parameters_go_with_dots() {
        let text = "spec: {containers: [], securityContext: {sysctls: [{name: net/ipv4/tcp_rmem, value: 4096 8192 8192}]}}";
        let sysctls = sandbox_spec(&NodeFacts::default(), &pod(text), 0).sysctls;
        assert_eq!(sysctls, BTreeMap::from([("net.ipv4.tcp_rmem".into(), "4096 8192 8192".into())]));
    }

    #[test]
    fn ports_of_all_containers_are_mapped_with_their_protocol() {
        let text = "spec:\n  containers:\n  - {name: a, ports: [{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1}]}\n\
                    \x20 - {name: b, ports: [{containerPort: 53, protocol: UDP}, {containerPort: 1, protocol: SCTP}]}";
        let ports = sandbox_spec(&NodeFacts::default(), &pod(text), 0).port_mappings;
        let seen: Vec<_> = ports.iter().map(|p| (p.protocol, p.container_port, p.host_port)).collect();
        assert_eq!(seen, [(Protocol::Tcp, 80, 8080), (Protocol::Udp, 53, 0), (Protocol::Sctp, 1, 0)]);
        assert_eq!(ports[0].host_ip, "127.0.0.1");
    }
}
