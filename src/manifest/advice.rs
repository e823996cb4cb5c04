//! What a manifest may say and hardly means: warnings, never refusals. Pure.
//!
//! A warning has one way to be right, so that nobody learns to look past it: it names what will go wrong and what to
//! write instead.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, VolumeMount};

use super::admit::Report;
use super::support::{self, Support};
use crate::pod::container::with_tag;
use crate::pod::priority;
use crate::quantity::Amount;

/// No process starts with less memory than this, in bytes.
const LEAST_MEMORY: i128 = 4 << 20;

/// Adds the warnings about a defaulted pod that was found right.
pub(crate) fn pod(pod: &Pod, report: &mut Report<'_>) {
    without_effect(report);
    let Some(spec) = &pod.spec else { return };
    if report.has("spec.dnsPolicy")
        && spec.dns_policy.as_deref() == Some("ClusterFirst")
        && spec.host_network == Some(true)
    {
        let text = "on the node's network this means Default; write ClusterFirstWithHostNet for the cluster's servers";
        report.add("spec.dnsPolicy", text);
    }
    if spec.termination_grace_period_seconds == Some(0) {
        let text = "containers are killed after the 2 seconds that every stop takes, whatever they are doing";
        report.add("spec.terminationGracePeriodSeconds", text);
    }
    unused_volumes(spec, report);
    let critical = is_critical(pod, spec);
    for (field, container) in containers(spec) {
        image(container, &field, report);
        command(container, &field, report);
        memory(container, critical, &field, report);
        variables(container, &field, report);
        mounts(spec, container, &field, report);
        if runs_as_root_against_its_word(spec, container) {
            let text = "is 0 and runAsNonRoot is true: the container will never be made";
            report.add(&format!("{field}.securityContext.runAsUser"), text);
        }
    }
}

/// With their fields, regular ones first.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let named = |list: &'static str| move |(index, one)| (format!("spec.{list}[{index}]"), one);
    let init = spec.init_containers.iter().flatten().enumerate().map(named("initContainers"));
    spec.containers.iter().enumerate().map(named("containers")).chain(init)
}

/// Fields that installers write into everything.
const COMMON: &[&str] = &["spec.priority", "spec.priorityClassName", "spec.tolerations"];

/// Fields that are written and mean nothing here.
fn without_effect(report: &mut Report<'_>) {
    let rows: Vec<(String, &'static str)> = report
        .fields()
        .filter_map(|field| match support::of(field)? {
            Support::NoEffect(why) if !COMMON.contains(&field) => Some((field.to_owned(), why)),
            _ => None,
        })
        .collect();
    for (field, why) in rows {
        report.add(&field, format!("has no effect: {why}"));
    }
}

fn is_critical(pod: &Pod, spec: &PodSpec) -> bool {
    pod.metadata.namespace.as_deref() == Some("kube-system")
        || spec.priority_class_name.as_deref().is_some_and(|class| class.starts_with("system-"))
        || priority::is_critical(spec)
}

fn unused_volumes(spec: &PodSpec, report: &mut Report<'_>) {
    let mounts =
        containers(spec).flat_map(|(_, c)| c.volume_mounts.iter().flatten().map(|m| m.name.as_str()));
    let variables = containers(spec)
        .flat_map(|(_, c)| c.env.iter().flatten())
        .filter_map(|v| v.value_from.as_ref()?.file_key_ref.as_ref().map(|file| file.volume_name.as_str()));
    let used: HashSet<&str> = mounts.chain(variables).collect();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        if !used.contains(volume.name.as_str()) {
            let text = format!("no container mounts \"{}\"", volume.name);
            report.add(&format!("spec.volumes[{index}]"), text);
        }
    }
}

fn image(container: &Container, field: &str, report: &mut Report<'_>) {
    let image = with_tag(container.image.as_deref().unwrap_or_default());
    if image.ends_with(":latest") && container.image_pull_policy.as_deref() == Some("Always") {
        let text = "is asked for at every start and changes under its name: a registry that is away keeps the \
                    container down. Name a version, or write imagePullPolicy: IfNotPresent";
        report.add(&format!("{field}.image"), text);
    }
}

/// `command: ["sh -c x"]` names a program with spaces.
fn command(container: &Container, field: &str, report: &mut Report<'_>) {
    let first = container.command.iter().flatten().next();
    if let Some(program) = first.filter(|p| p.contains(' ') && !p.starts_with("$(")) {
        let text = format!(
            "\"{program}\" is one word, the name of a program; write each word as an item of its own"
        );
        report.add(&format!("{field}.command[0]"), text);
    }
}

fn memory(container: &Container, critical: bool, field: &str, report: &mut Report<'_>) {
    let resources = container.resources.as_ref();
    let limit = resources.and_then(|r| r.limits.as_ref()?.get("memory"));
    match limit {
        Some(limit) => {
            let bytes = limit.0.parse::<Amount>().map_or(i128::MAX, |a| a.nano() / 1_000_000_000);
            if (1..LEAST_MEMORY).contains(&bytes) || (bytes == 0 && limit.0 != "0") {
                let text = format!(
                    "\"{}\" is {bytes} bytes, with which nothing starts; did you mean {}Mi?",
                    limit.0,
                    limit.0.trim_end_matches(|c: char| !c.is_ascii_digit())
                );
                report.add(&format!("{field}.resources.limits[memory]"), text);
            }
        }
        None if critical => {
            let text = "a container of a critical pod without a memory limit can take the node down with it";
            report.add(&format!("{field}.resources.limits"), text);
        }
        None => {}
    }
}

fn variables(container: &Container, field: &str, report: &mut Report<'_>) {
    let mut seen = HashMap::new();
    for (index, variable) in container.env.iter().flatten().enumerate() {
        if let Some(first) = seen.insert(variable.name.as_str(), index) {
            let text = format!("\"{}\" is also env[{first}]; the later one counts", variable.name);
            report.add(&format!("{field}.env[{index}].name"), text);
        }
    }
}

fn mounts(spec: &PodSpec, container: &Container, field: &str, report: &mut Report<'_>) {
    let volume = |mount: &VolumeMount| spec.volumes.iter().flatten().find(|v| v.name == mount.name);
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let Some(volume) = volume(mount) else { continue };
        let writable = mount.read_only != Some(true);
        let root = volume.host_path.as_ref().is_some_and(|host| host.path.trim_matches('/').is_empty());
        let whole = mount.sub_path.is_none() && mount.sub_path_expr.is_none();
        if root && writable && whole {
            let text = "the container may write to all of the node; write readOnly: true, or a path below /";
            report.add(&format!("{field}.volumeMounts[{index}]"), text);
        }
        let in_memory = |e: &k8s_openapi::api::core::v1::EmptyDirVolumeSource| {
            e.medium.as_deref() == Some("Memory") && e.size_limit.is_none()
        };
        if volume.empty_dir.as_ref().is_some_and(in_memory) && !limited(container) {
            let text = format!(
                "\"{}\" is kept in memory, and neither its sizeLimit nor a memory limit bounds it",
                volume.name
            );
            report.add(&format!("{field}.volumeMounts[{index}]"), text);
        }
    }
}

fn limited(container: &Container) -> bool {
    container.resources.as_ref().is_some_and(|r| r.limits.iter().any(|l| l.contains_key("memory")))
}

/// The container's own words go before the pod's, one by one.
fn runs_as_root_against_its_word(spec: &PodSpec, container: &Container) -> bool {
    let (own, pods) = (container.security_context.as_ref(), spec.security_context.as_ref());
    let user = own.and_then(|s| s.run_as_user).or_else(|| pods?.run_as_user);
    let sworn = own.and_then(|s| s.run_as_non_root).or_else(|| pods?.run_as_non_root);
    user == Some(0) && sworn == Some(true)
}
