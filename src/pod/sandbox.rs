//! Pod -> [`SandboxSpec`] (`kubelet-static-pods.md 2.8`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, Pod, PodSpec};
use podstead_runtime::{DnsConfig, LinuxResources, PortMapping, Protocol, SandboxSpec, labels};

use super::dns::{self, Complaint};
use super::hostname::{self, FqdnTooLong};
use super::{NodeFacts, identity, resources, security, sysctl};

/// The sandbox of a pod's `attempt`, but for the [names](named) in it.
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
        hostname: hostname::short(pod),
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

/// The same with its names: the resolver's settings, of which `nodes_resolver` are the node's, and the host name as the
/// kernel is to have it. Also answers what of them is not as the manifest asks for.
pub fn named(
    mut spec: SandboxSpec,
    node: &NodeFacts,
    pod: &Pod,
    nodes_resolver: &DnsConfig,
) -> Result<(SandboxSpec, Vec<Complaint>), FqdnTooLong> {
    let formed = dns::form(&node.dns, &node.node_ips, nodes_resolver, pod);
    spec.hostname = hostname::kernel(pod, &node.dns.domain)?;
    spec.dns = Some(formed.config);
    Ok((spec, formed.complaints))
}

fn sysctls(spec: &PodSpec) -> BTreeMap<String, String> {
    let all = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    all.map(|s| (sysctl::normalize(&s.name), s.value.clone())).collect()
}

fn port_mappings(spec: &PodSpec) -> Vec<PortMapping> {
    let mapping = |port: &ContainerPort| PortMapping {
        protocol: match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
        container_port: u16::try_from(port.container_port).unwrap_or(0),
        host_port: port.host_port.and_then(|p| u16::try_from(p).ok()).unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    };
    let mut all = Vec::new();
    for container in &spec.containers {
        let mut own: Vec<PortMapping> = Vec::new();
        for port in container.ports.iter().flatten() {
            let mapping = mapping(port);
            // Said twice without a name, it is one port (`kubelet-static-pods.md 4.2`).
            if port.name.as_deref().unwrap_or_default().is_empty() && own.contains(&mapping) {
                continue;
            }
            own.push(mapping);
        }
        all.append(&mut own);
    }
    all
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
    fn names_are_the_kernels_and_the_resolvers() {
        let mut node = NodeFacts::default();
        node.dns.domain = "kube.local".into();
        node.dns.servers = vec!["192.0.2.1".parse().unwrap()];
        let of = |text: &str| {
            let pod = pod(text);
            named(sandbox_spec(&node, &pod, 0), &node, &pod, &DnsConfig::default())
        };
        let (spec, _) = of("spec: {subdomain: s, setHostnameAsFQDN: true, containers: []}").unwrap();
        assert_eq!(spec.hostname, "web-node.s.default.svc.kube.local");
        assert_eq!(spec.dns.unwrap().searches[0], "default.svc.kube.local");
        let long = "s".repeat(63);
        assert!(
            of(&format!("spec: {{subdomain: {long}, setHostnameAsFQDN: true, containers: []}}")).is_err()
        );
    }

    #[test]
    fn a_port_said_twice_is_mapped_once() {
        let text = "spec:\n  containers:\n  - {name: a, ports: [{containerPort: 80}, {containerPort: 80}, {containerPort: 80, name: x}]}\n\
                    \x20 - {name: b, ports: [{containerPort: 80}]}";
        assert_eq!(sandbox_spec(&NodeFacts::default(), &pod(text), 0).port_mappings.len(), 3);
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
