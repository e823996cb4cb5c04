//! The API's validation rules for the fields podstead supports. Pure.
//!
//! Works on the defaulted pod; every error names the place in the text that the field came from.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodSpec};

use super::admit_env as env;
use super::admit_life;
use super::admit_names;
use super::admit_parts as parts;
use super::admit_probes;
use super::admit_security as security;
use super::admit_volumes as volumes;
use super::check::Places;
use super::identity::CONFIG_MIRROR;
use super::names;
use super::refusal::{Position, Refusals};

/// All annotations of an object together, as in the API.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Collects errors with the place of a field, or of its nearest ancestor in the text.
pub(crate) struct Report<'a> {
    pub(crate) places: &'a Places,
    pub(crate) prefix: &'a str,
    pub(crate) start: Position,
    pub(crate) refusals: &'a mut Refusals,
}

impl Report<'_> {
    pub(crate) fn add(&mut self, field: &str, message: impl Into<String>) {
        self.add_with(field, message, None);
    }

    pub(crate) fn add_with(&mut self, field: &str, message: impl Into<String>, suggestion: Option<String>) {
        let mut path = field;
        let at = loop {
            if let Some(at) = self.places.get(path).filter(|_| !path.is_empty()) {
                break *at;
            }
            match path.rfind(['.', '[']) {
                Some(cut) => path = &path[..cut],
                None => break self.start,
            }
        };
        self.refusals.add_with(at, format!("{}{field}", self.prefix), message, suggestion);
    }

    /// Whether the text says the field.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.places.contains_key(field)
    }

    /// Every field that the text says.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    pub(crate) fn verdict(&mut self, field: &str, verdict: Result<(), String>) {
        if let Err(message) = verdict {
            self.add(field, message);
        }
    }

    /// An error unless `value` is one of `known`.
    pub(crate) fn one_of(&mut self, field: &str, value: &str, known: &[&str]) {
        if !known.contains(&value) {
            let known: Vec<&str> = known.iter().copied().filter(|k| !k.is_empty()).collect();
            self.add(field, format!("\"{value}\" is not one of {}", known.join(", ")));
        }
    }
}

/// Checks a defaulted pod that has not been renamed yet; `node` is the suffix its name will get.
pub(crate) fn pod(pod: &Pod, node: &str, report: &mut Report<'_>) {
    metadata(pod, node, report);
    match &pod.spec {
        None => report.add("spec", "is missing"),
        Some(spec) => {
            self::spec(spec, report);
            security::pod(pod, spec, report);
        }
    }
}

fn metadata(pod: &Pod, node: &str, report: &mut Report<'_>) {
    let meta = &pod.metadata;
    match meta.name.as_deref().unwrap_or_default() {
        "" => report.add("metadata.name", "is missing; a static pod needs a name"),
        name => {
            let full = format!("{name}-{node}");
            let verdict = names::subdomain(name).and_then(|()| {
                names::subdomain(&full).map_err(|e| format!("with this node's name as suffix, {e}"))
            });
            report.verdict("metadata.name", verdict);
        }
    }
    if let Some(namespace) = &meta.namespace {
        report.verdict("metadata.namespace", names::label(namespace));
    }
    if let Some(uid) = meta.uid.as_deref().filter(|uid| !uid.is_empty()) {
        report.verdict("metadata.uid", names::uid(uid));
    }
    for (key, value) in meta.labels.iter().flatten() {
        let verdict = names::qualified(key).and_then(|()| names::label_value(value));
        report.verdict(&format!("metadata.labels[{key}]"), verdict);
    }
    let mut bytes = 0;
    for (key, value) in meta.annotations.iter().flatten() {
        bytes += key.len() + value.len();
        let field = format!("metadata.annotations[{key}]");
        report.verdict(&field, names::qualified(&key.to_lowercase()));
        if key == CONFIG_MIRROR {
            report.add(
                &field,
                "this is the API server's image of a static pod, not its manifest; take this annotation away \
                 (and the uid, so that changes are noticed)",
            );
        }
    }
    if bytes > MAX_ANNOTATIONS {
        report.add("metadata.annotations", format!("are larger than {MAX_ANNOTATIONS} bytes together"));
    }
}

fn spec(spec: &PodSpec, report: &mut Report<'_>) {
    if let Some(policy) = &spec.restart_policy {
        report.one_of("spec.restartPolicy", policy, &["Always", "OnFailure", "Never"]);
    }
    if spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        report.add("spec.terminationGracePeriodSeconds", "must not be negative");
    }
    admit_names::names(spec, report);
    let known = volumes::volumes(spec, report);
    volumes::fs_group(spec, report);
    if spec.containers.is_empty() {
        report.add("spec.containers", "a pod needs at least one container");
    }
    admit_life::pod(spec, report);
    let mut names = HashMap::new();
    let mut host_ports = HashMap::new();
    for (init, field, one) in containers(spec) {
        if let Some(first) = names.insert(one.name.as_str(), field.clone()) {
            let message = format!("\"{}\" is also the name of {first}", one.name);
            report.add(&format!("{field}.name"), message);
        }
        container(spec, one, &field, report);
        admit_life::container(spec, one, init, &field, report);
        ports(one, &field, spec.host_network == Some(true), &mut host_ports, report);
        volumes::mounts(one, &field, &known, report);
        security::container(one, &field, report);
    }
}

/// Regular containers, then init containers (`true`), with their fields.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (bool, String, &Container)> {
    let regular = spec.containers.iter().enumerate();
    let init = spec.init_containers.iter().flatten().enumerate();
    let regular = regular.map(|(index, one)| (false, format!("spec.containers[{index}]"), one));
    regular.chain(init.map(|(index, one)| (true, format!("spec.initContainers[{index}]"), one)))
}

fn container(spec: &PodSpec, container: &Container, field: &str, report: &mut Report<'_>) {
    match container.name.as_str() {
        "" => report.add(&format!("{field}.name"), "is missing; a container needs a name"),
        name => report.verdict(&format!("{field}.name"), names::label(name)),
    }
    let image = container.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        report.add(&format!("{field}.image"), "is missing; a container needs an image");
    } else if image.trim() != image {
        report.add(&format!("{field}.image"), "may not begin or end with a space");
    }
    if let Some(policy) = &container.image_pull_policy {
        report.one_of(&format!("{field}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        env::variable(spec, variable, &format!("{field}.env[{index}]"), report);
    }
    if !container.env_from.as_deref().unwrap_or_default().is_empty() {
        report.add(&format!("{field}.envFrom"), "names no source");
    }
    admit_probes::probes(container, field, report);
    parts::resources(container.resources.as_ref(), &format!("{field}.resources"), report);
}

/// Host address, protocol and host port, and the field that took it first.
type HostPorts = HashMap<(String, String, i32), String>;

fn ports(
    container: &Container,
    field: &str,
    host_network: bool,
    taken: &mut HostPorts,
    report: &mut Report<'_>,
) {
    let mut names = HashSet::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let field = format!("{field}.ports[{index}]");
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            report.verdict(&format!("{field}.name"), names::port(name));
            if !names.insert(name) {
                report.add(&format!("{field}.name"), format!("\"{name}\" names two ports of this container"));
            }
        }
        self::port(port, &field, host_network, report);
        let host_port = port.host_port.unwrap_or(0);
        if host_port != 0 {
            let protocol = port.protocol.clone().unwrap_or_default();
            let key = (port.host_ip.clone().unwrap_or_default(), protocol, host_port);
            if let Some(first) = taken.insert(key, field.clone()) {
                report.add(&format!("{field}.hostPort"), format!("{host_port} is already taken by {first}"));
            }
        }
    }
}

fn port(port: &ContainerPort, field: &str, host_network: bool, report: &mut Report<'_>) {
    let range = 1..=65535;
    match port.container_port {
        0 => report.add(&format!("{field}.containerPort"), "is missing"),
        number if !range.contains(&number) => {
            report.add(&format!("{field}.containerPort"), "must be between 1 and 65535");
        }
        _ => {}
    }
    // On the host's network an absent hostPort was defaulted to containerPort, which is checked above.
    if let Some(number) = port.host_port.filter(|n| *n != 0 && *n != port.container_port) {
        if !range.contains(&number) {
            report.add(&format!("{field}.hostPort"), "must be between 1 and 65535");
        } else if host_network {
            report.add(&format!("{field}.hostPort"), "must equal containerPort on the host's network");
        }
    }
    if let Some(protocol) = &port.protocol {
        report.one_of(&format!("{field}.protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    if let Some(ip) = port.host_ip.as_deref().filter(|ip| !ip.is_empty())
        && ip.parse::<IpAddr>().is_err()
    {
        report.add(&format!("{field}.hostIP"), format!("\"{ip}\" is not an IP address"));
    }
}
