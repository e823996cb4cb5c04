//! The downward API: what a container may be told of its pod, by field paths and resource names
//! (`kubelet-static-pods.md 4.1, 4.3`). Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceFieldSelector};
use thiserror::Error;

use super::NodeFacts;
use crate::quantity::Amount;

/// Field paths that a variable may name, besides those with a key.
pub const VARIABLE_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Field paths that a file of a volume may hold, besides those with a key.
pub const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Field paths that take a key: `metadata.labels['role']`.
pub const KEYED_FIELDS: &[&str] = &["metadata.annotations", "metadata.labels"];
/// Resources that can be asked for, besides those that begin with one of [`HUGE_PAGES`].
pub const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Beginnings of the resources of huge pages, which end with a page size.
pub const HUGE_PAGES: &[&str] = &["limits.hugepages-", "requests.hugepages-"];

/// What was asked for is not told, in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DownwardError {
    /// No such field, or not one that is told.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// No such resource.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// The resource of a container that the pod does not have.
    #[error("container {0} not found")]
    Container(String),
}

/// What of a pod only the node knows.
#[derive(Clone, Copy, Debug)]
pub struct Addresses<'a> {
    /// The sandbox's addresses.
    pub pod: &'a [IpAddr],
    /// The node's, the primary first.
    pub node: &'a [IpAddr],
}

/// A path and its key: `metadata.labels['role']` is `metadata.labels` and `role`.
pub fn split_key(path: &str) -> Option<(&str, &str)> {
    let (path, key) = path.strip_suffix("']")?.split_once("['")?;
    (!path.is_empty()).then_some((path, key))
}

/// The value of a field. On the node's network the pod's addresses are the node's.
pub fn field(pod: &Pod, path: &str, addresses: Addresses<'_>) -> Result<String, DownwardError> {
    let meta = &pod.metadata;
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some((path, key)) = split_key(path) {
        let table = match path {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(DownwardError::Field(path.to_owned())),
        };
        return Ok(text(table.as_ref().and_then(|table| table.get(key))));
    }
    let spec = pod.spec.as_ref();
    let pod_ips = || {
        let shared = spec.and_then(|s| s.host_network).unwrap_or(false);
        if shared { one_of_each_family(addresses.node) } else { in_order_of(addresses.node, addresses.pod) }
    };
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => table(meta.labels.as_ref()),
        "metadata.annotations" => table(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" => first(&one_of_each_family(addresses.node)),
        "status.hostIPs" => joined(&one_of_each_family(addresses.node)),
        "status.podIP" => first(&pod_ips()),
        "status.podIPs" => joined(&pod_ips()),
        _ => return Err(DownwardError::Field(path.to_owned())),
    })
}

fn first(ips: &[IpAddr]) -> String {
    ips.first().map(ToString::to_string).unwrap_or_default()
}

fn joined(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// What the API calls the addresses of a node: its first of each family.
pub fn one_of_each_family(ips: &[IpAddr]) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> = Vec::new();
    for ip in ips {
        if !chosen.iter().any(|c| c.is_ipv4() == ip.is_ipv4()) {
            chosen.push(*ip);
        }
    }
    chosen
}

/// The pod's addresses, those of the family that the node prefers first.
fn in_order_of(node: &[IpAddr], pod: &[IpAddr]) -> Vec<IpAddr> {
    let v6_first = node.first().is_some_and(IpAddr::is_ipv6);
    let mut sorted = pod.to_vec();
    sorted.sort_by_key(|ip| ip.is_ipv6() != v6_first);
    sorted
}

/// The amount of a container's resource in units of the divisor, rounded up. `own` is the container that asks. A limit
/// that is absent is the pod's, else what the node has.
pub fn resource(
    node: &NodeFacts,
    spec: &PodSpec,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
) -> Result<String, DownwardError> {
    let unknown = || DownwardError::Resource(selector.resource.clone());
    let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => {
            let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            all.into_iter()
                .find(|c| c.name == name)
                .ok_or_else(|| DownwardError::Container(name.to_owned()))?
        }
        None => own.ok_or_else(|| DownwardError::Container(String::new()))?,
    };
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let huge = HUGE_PAGES.iter().any(|beginning| selector.resource.starts_with(beginning));
    if !huge && !RESOURCES.contains(&selector.resource.as_str()) {
        return Err(unknown());
    }
    let own = container.resources.as_ref();
    let amount = match kind {
        "limits" => {
            let limit = |table: Option<&BTreeMap<_, _>>| read(table, name).filter(|a| a.nano() > 0);
            let pods = || limit(spec.resources.as_ref().and_then(|r| r.limits.as_ref()));
            let nano = limit(own.and_then(|r| r.limits.as_ref())).or_else(pods).map(Amount::nano);
            nano.unwrap_or_else(|| allocatable(node, name))
        }
        _ => read(own.and_then(|r| r.requests.as_ref()), name).map_or(0, Amount::nano),
    };
    let divisor = selector.divisor.as_ref().and_then(|d| d.0.parse::<Amount>().ok()).map_or(0, Amount::nano);
    let divisor = if divisor > 0 { divisor } else { NANO };
    // As the kubelet counts: cpu in thousandths, everything else in whole units, before it divides.
    let unit = if name == "cpu" { NANO / 1000 } else { NANO };
    let (amount, divisor) = (ceil(amount, unit), ceil(divisor, unit));
    Ok(ceil(amount, divisor.max(1)).to_string())
}

const NANO: i128 = 1_000_000_000;

fn ceil(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

type Quantities = BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

fn read(table: Option<&Quantities>, name: &str) -> Option<Amount> {
    table?.get(name)?.0.parse().ok()
}

/// What the node has for pods, in 10^-9 units.
fn allocatable(node: &NodeFacts, name: &str) -> i128 {
    let unit = if name == "cpu" { NANO / 1000 } else { NANO };
    i128::from(node.allocatable(name)) * unit
}

/// Labels or annotations as the lines of a file: `key="value"`, quoted as Go quotes.
fn table(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

fn quoted(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            _ if is_printable(c) => out.push(c),
            _ => {
                let number = u32::from(c);
                let _ = match number {
                    0..0x80 => write!(out, "\\x{number:02x}"),
                    0x80..0x1_0000 => write!(out, "\\u{number:04x}"),
                    _ => write!(out, "\\U{number:08x}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// After a letter, Rust writes marks as they are and what cannot be seen as an escape, as Go does.
fn is_printable(c: char) -> bool {
    matches!(c, ' ' | '\'') || !c.is_whitespace() && format!("a{c}").escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(host_network: bool) -> Pod {
        let text = format!(
            "metadata: {{name: web-node, namespace: ns, uid: u1, labels: {{b: '2', a: '1'}}, annotations: \
             {{x/y: \"l1\\nl\\\"2\"}}}}\nspec: {{nodeName: node, hostNetwork: {host_network}, containers: []}}"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn value(path: &str, host_network: bool) -> String {
        let (own, node) =
            (ips(&["fd00::7", "10.1.0.7"]), ips(&["10.0.0.1", "192.168.0.1", "fd00::1", "fd00::2"]));
        field(&pod(host_network), path, Addresses { pod: &own, node: &node }).unwrap()
    }

    #[test]
    fn every_field_of_the_api_is_told() {
        for (path, expected) in [
            ("metadata.name", "web-node"),
            ("metadata.namespace", "ns"),
            ("metadata.uid", "u1"),
            ("metadata.labels['a']", "1"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['x/y']", "l1\nl\"2"),
            ("metadata.labels", "a=\"1\"\nb=\"2\""),
            ("metadata.annotations", "x/y=\"l1\\nl\\\"2\""),
            ("spec.nodeName", "node"),
            ("spec.serviceAccountName", ""),
            ("status.hostIP", "10.0.0.1"),
            ("status.hostIPs", "10.0.0.1,fd00::1"),
            ("status.podIP", "10.1.0.7"),
            ("status.podIPs", "10.1.0.7,fd00::7"),
        ] {
            assert_eq!(value(path, false), expected, "{path}");
        }
        for path in VARIABLE_FIELDS.iter().chain(FILE_FIELDS) {
            value(path, false);
        }
    }

    #[test]
    fn on_the_nodes_network_a_pod_has_the_nodes_addresses() {
        assert_eq!(value("status.podIP", true), "10.0.0.1");
        assert_eq!(value("status.podIPs", true), "10.0.0.1,fd00::1");
    }

    #[test]
    fn what_is_not_told_is_named() {
        let none = Addresses { pod: &[], node: &[] };
        for path in ["status.phase", "spec.containers", "metadata.name['a']", ""] {
            assert!(matches!(field(&pod(false), path, none), Err(DownwardError::Field(_))), "{path}");
        }
        assert_eq!(field(&pod(false), "status.podIP", none).unwrap(), "");
    }

    #[test]
    fn text_is_quoted_as_go_quotes_it() {
        for (text, expected) in [
            ("a b", r#""a b""#),
            ("é👍e\u{301}", "\"é👍e\u{301}\""),
            ("\u{0}\u{7f}\u{1b}", r#""\x00\x7f\x1b""#),
            ("\u{a0}\u{200b}\u{e0001}", r#""\u00a0\u200b\U000e0001""#),
            ("'\\", r#""'\\""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    fn amount(resource: &str, divisor: &str) -> Result<String, DownwardError> {
        let node = NodeFacts {
            cpu_capacity: 4000,
            memory_capacity: 8 << 30,
            storage_capacity: 100,
            ..NodeFacts::default()
        };
        let text = "containers: [{name: a, resources: {limits: {cpu: 1500m, hugepages-2Mi: 4Mi}, requests: {cpu: 1m, memory: \
                    1000001}}}, {name: b}]";
        let spec: PodSpec = serde_yaml::from_str(text).unwrap();
        let (name, resource) = resource.split_once('/').unwrap_or(("", resource));
        let selector = ResourceFieldSelector {
            container_name: Some(name.to_owned()),
            divisor: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.to_owned())),
            resource: resource.to_owned(),
        };
        super::resource(&node, &spec, Some(&spec.containers[0]), &selector)
    }

    #[test]
    fn amounts_are_divided_and_rounded_up_and_absent_limits_are_the_nodes() {
        for (resource, divisor, expected) in [
            ("limits.cpu", "0", "2"),
            ("limits.cpu", "1m", "1500"),
            ("requests.cpu", "1", "1"),
            ("requests.cpu", "1m", "1"),
            ("requests.memory", "1M", "2"),
            ("requests.memory", "1Mi", "1"),
            ("limits.memory", "1Gi", "8"),
            ("limits.ephemeral-storage", "", "90"),
            ("requests.ephemeral-storage", "1", "0"),
            ("limits.hugepages-2Mi", "1Mi", "4"),
            ("requests.hugepages-2Mi", "1Mi", "0"),
            ("b/limits.cpu", "1", "4"),
            ("b/requests.memory", "1", "0"),
        ] {
            assert_eq!(amount(resource, divisor).unwrap(), expected, "{resource} by {divisor}");
        }
        assert_eq!(amount("c/limits.cpu", "1"), Err(DownwardError::Container("c".into())));
        assert_eq!(amount("limits.gpu", "1"), Err(DownwardError::Resource("limits.gpu".into())));
    }

    #[test]
    fn a_pods_own_limit_stands_in_for_a_containers() {
        let text = "{containers: [{name: a}], resources: {limits: {memory: 1Gi}}}";
        let spec: PodSpec = serde_yaml::from_str(text).unwrap();
        let selector =
            ResourceFieldSelector { resource: "limits.memory".into(), ..ResourceFieldSelector::default() };
        let got = resource(&NodeFacts::default(), &spec, Some(&spec.containers[0]), &selector);
        assert_eq!(got.unwrap(), (1_u64 << 30).to_string());
    }
}
