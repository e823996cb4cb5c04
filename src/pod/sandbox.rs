//! Pod -> [`SandboxSpec`] (`kubelet-static-pods.md 2.8`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use podstead_runtime::{
    LinuxResources, NamespaceMode, Namespaces, PortMapping, Profile, Protocol, SandboxSecurity, SandboxSpec,
    labels,
};

use super::{NodeFacts, identity, resources};

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
        security: SandboxSecurity {
            namespaces: namespaces(spec),
            seccomp: Profile::RuntimeDefault,
            ..SandboxSecurity::default()
        },
        overhead: Some(LinuxResources::default()),
        resources: Some(sum),
        pod: id,
        ..SandboxSpec::default()
    }
}

/// Namespaces of the pod and of each of its containers: the runtimes want both told the same.
pub fn namespaces(spec: &PodSpec) -> Namespaces {
    let network = if spec.host_network.unwrap_or(false) { NamespaceMode::Node } else { NamespaceMode::Pod };
    Namespaces { network, pid: NamespaceMode::Container, ipc: NamespaceMode::Pod, user: None }
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
