//! What to probe: one running instance with all that a probe of it needs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use podstead_runtime::{ContainerId, PodUid, Time};

use super::verdict::Probes;
use crate::pod::env;

/// One running instance, of the newest attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Pod.
    pub pod: PodUid,
    /// `namespace/name`, for messages.
    pub pod_name: String,
    /// Container.
    pub container: String,
    /// Instance.
    pub id: ContainerId,
    /// Since when it runs.
    pub started_at: Time,
    /// Its probes; the commands of `exec` probes are expanded.
    pub probes: Arc<Probes>,
    /// The container's ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Where to connect to, in order: the pod's address; on the node's network the node's, then loopback.
    pub host: Vec<IpAddr>,
}

/// What the supervisor is to probe, and what it is to remember.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// What runs.
    pub targets: Vec<Target>,
    /// Every instance that the runtime has, dead ones included: verdicts of others are dropped.
    pub keep: BTreeSet<ContainerId>,
}

impl Target {
    /// The port a probe means: a number, or a name of this container's; as a last resort a number written as a text.
    pub(super) fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => match self.ports.get(name) {
                Some(number) => i32::from(*number),
                None => name.parse().map_err(|_| format!("the container has no port named {name:?}"))?,
            },
        };
        u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
    }

    /// The same instance once its pod is about to end: only readiness is still probed (`kubelet-static-pods.md 3`).
    #[must_use]
    pub fn ending(mut self) -> Self {
        let readiness = self.probes.readiness.clone();
        self.probes = Arc::new(Probes { readiness, ..Probes::default() });
        self
    }
}

/// The container's ports by name; of two with one name the first.
pub fn ports(container: &Container) -> BTreeMap<String, u16> {
    let mut ports = BTreeMap::new();
    for port in container.ports.iter().flatten() {
        if let (Some(name), Ok(number)) = (&port.name, u16::try_from(port.container_port)) {
            ports.entry(name.clone()).or_insert(number);
        }
    }
    ports
}

/// The probes of a container with `$(NAME)` in their commands expanded by what the manifest itself says of the
/// environment; a name whose value comes from elsewhere stays as it is written.
pub fn probes(container: &Container) -> Probes {
    let mut probes = Probes::of(container);
    let mut known = BTreeMap::new();
    for var in container.env.iter().flatten().filter(|var| var.value_from.is_none()) {
        let value = env::expand(var.value.as_deref().unwrap_or_default(), &known);
        known.insert(var.name.clone(), value);
    }
    let expand = |probe: &mut Option<Probe>| {
        let command = probe.as_mut().and_then(|p| p.exec.as_mut()).and_then(|e| e.command.as_mut());
        command.into_iter().flatten().for_each(|word| *word = env::expand(word, &known));
    };
    expand(&mut probes.startup);
    expand(&mut probes.liveness);
    expand(&mut probes.readiness);
    probes
}

/// Where probes of a pod go: to its primary address, or, on the node's network, to the node's and then to loopback.
pub fn host(host_network: bool, pod_ips: &[IpAddr], node_ips: &[IpAddr]) -> Vec<IpAddr> {
    if !host_network {
        return pod_ips.iter().take(1).copied().collect();
    }
    let mut all: Vec<IpAddr> = node_ips.iter().take(1).copied().collect();
    all.push(IpAddr::from([127, 0, 0, 1]));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(text: &str) -> Container {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn ports_are_found_by_number_and_by_name() {
        let text = "{name: c, ports: [{name: web, containerPort: 8080}, {name: big, containerPort: 70000}]}";
        let target = Target {
            pod: PodUid::default(),
            pod_name: String::new(),
            container: String::new(),
            id: ContainerId::default(),
            started_at: Time(0),
            probes: Arc::default(),
            ports: ports(&container(text)),
            host: Vec::new(),
        };
        let port = |p: IntOrString| target.port(&p).map_err(|e| e.split(' ').next().unwrap_or("").to_owned());
        let name = |n: &str| IntOrString::String(n.to_owned());
        assert_eq!(port(IntOrString::Int(81)), Ok(81));
        assert_eq!(port(name("web")), Ok(8080));
        assert_eq!(port(name("9090")), Ok(9090));
        assert_eq!(port(name("big")), Err("the".into()));
        assert_eq!(port(IntOrString::Int(0)), Err("invalid".into()));
        assert_eq!(port(IntOrString::Int(70000)), Err("invalid".into()));
    }

    #[test]
    fn commands_expand_with_what_the_manifest_says_and_with_nothing_else() {
        let text = "{name: c, env: [{name: A, value: x}, {name: B, value: $(A)y}, \
                    {name: C, valueFrom: {fieldRef: {fieldPath: metadata.name}}}], \
                    livenessProbe: {exec: {command: [$(A), $(B), $(C), $$(A)]}}}";
        let got = probes(&container(text)).liveness.unwrap().exec.unwrap().command.unwrap();
        assert_eq!(got, ["x", "xy", "$(C)", "$(A)"]);
    }

    #[test]
    fn a_pod_is_reached_at_its_address_and_one_on_the_nodes_network_at_the_nodes() {
        let ips = |text: &str| text.split_whitespace().map(|t| t.parse().unwrap()).collect::<Vec<IpAddr>>();
        let (pod, node) = (ips("10.0.0.7 fd00::7"), ips("192.0.2.1 2001:db8::1"));
        assert_eq!(host(false, &pod, &node), ips("10.0.0.7"));
        assert_eq!(host(true, &[], &node), ips("192.0.2.1 127.0.0.1"));
        assert_eq!(host(true, &[], &[]), ips("127.0.0.1"));
    }
}
