//! The API's rules for security contexts, namespaces and the annotations that came before the fields. Pure.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};

use podstead_runtime::security::CAPABILITIES;

use super::admit::Report;
use super::check::nearest;
use crate::pod::security::{self, APPARMOR_ANNOTATION};
use crate::pod::sysctl::{self, Namespace};

/// Annotations of a pod's and of a container's seccomp profile, older than the fields; only held against those.
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The longest name of an AppArmor profile.
const LONGEST_PROFILE: usize = 4095;

/// The pod's own settings, and its annotations about security.
pub(super) fn pod(pod: &Pod, spec: &PodSpec, report: &mut Report<'_>) {
    if let Some(annotations) = &pod.metadata.annotations {
        self::annotations(annotations, spec, report);
    }
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        report.add("spec.shareProcessNamespace", "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    users(spec, report);
    let Some(security) = &spec.security_context else { return };
    let field = |name: &str| format!("spec.securityContext.{name}");
    id(security.run_as_user, &field("runAsUser"), report);
    id(security.run_as_group, &field("runAsGroup"), report);
    for (index, group) in security.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), &format!("{}[{index}]", field("supplementalGroups")), report);
    }
    if let Some(policy) = &security.supplemental_groups_policy {
        report.one_of(&field("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    }
    if let Some(policy) = &security.se_linux_change_policy {
        report.one_of(&field("seLinuxChangePolicy"), policy, &["MountOption", "Recursive"]);
    }
    seccomp(security.seccomp_profile.as_ref(), &field("seccompProfile"), report);
    apparmor(security.app_armor_profile.as_ref(), &field("appArmorProfile"), report);
    sysctls(security, spec, report);
}

/// A user namespace goes with no other namespace of the node's: what those belong to would be out of its reach.
fn users(spec: &PodSpec, report: &mut Report<'_>) {
    if !security::has_users(spec) {
        return;
    }
    let namespaces =
        [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    for (name, _) in namespaces.into_iter().filter(|(_, on)| *on == Some(true)) {
        report.add(&format!("spec.{name}"), "forbidden when `hostUsers` is false");
    }
}

/// A container's own settings.
pub(super) fn container(spec: &PodSpec, container: &Container, field: &str, report: &mut Report<'_>) {
    let Some(security) = &container.security_context else { return };
    let field = format!("{field}.securityContext");
    let users = security::has_users(spec);
    id(security.run_as_user, &format!("{field}.runAsUser"), report);
    id(security.run_as_group, &format!("{field}.runAsGroup"), report);
    escalation(security, &field, report);
    capabilities(security, &field, report);
    seccomp(security.seccomp_profile.as_ref(), &format!("{field}.seccompProfile"), report);
    apparmor(security.app_armor_profile.as_ref(), &format!("{field}.appArmorProfile"), report);
    if let Some(kind) = &security.proc_mount {
        let field = format!("{field}.procMount");
        report.one_of(&field, kind, &["Default", "Unmasked"]);
        if kind == "Unmasked" && !users {
            report.add(&field, "`hostUsers` must be false to use `Unmasked`");
        }
    }
}

fn id(id: Option<i64>, field: &str, report: &mut Report<'_>) {
    if id.is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)) {
        report.add(field, format!("must be between 0 and {}, inclusive", i32::MAX));
    }
}

fn escalation(security: &SecurityContext, field: &str, report: &mut Report<'_>) {
    if security.allow_privilege_escalation != Some(false) {
        return;
    }
    let field = format!("{field}.allowPrivilegeEscalation");
    if security.privileged == Some(true) {
        report.add(&field, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
    }
    let added = security.capabilities.iter().flat_map(|c| c.add.iter().flatten());
    if added.into_iter().any(|name| name == "CAP_SYS_ADMIN") {
        report.add(
            &field,
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
        );
    }
}

/// Runtimes pass over names they do not know; what was asked for would be missing in silence.
fn capabilities(security: &SecurityContext, field: &str, report: &mut Report<'_>) {
    let Some(lists) = &security.capabilities else { return };
    for (what, list) in [("add", &lists.add), ("drop", &lists.drop)] {
        for (index, name) in list.iter().flatten().enumerate() {
            let known = security::capability(name);
            if known == "ALL" || CAPABILITIES.contains(&known.as_str()) {
                continue;
            }
            let near = nearest(&known, CAPABILITIES.into_iter());
            let message = format!("\"{name}\" is no capability");
            report.add_with(&format!("{field}.capabilities.{what}[{index}]"), message, near);
        }
    }
}

fn seccomp(profile: Option<&SeccompProfile>, field: &str, report: &mut Report<'_>) {
    let Some(profile) = profile else { return };
    let name = format!("{field}.localhostProfile");
    kind(&profile.type_, "seccompProfile", field, report);
    match (profile.type_ == "Localhost", profile.localhost_profile.as_deref()) {
        (true, None | Some("")) => report.add(&name, "must be set when seccomp type is Localhost"),
        (true, Some(path)) if path.starts_with('/') => report.add(&name, "must be a relative path"),
        (true, Some(path)) if path.split('/').any(|part| part == "..") => {
            report.add(&name, "must not contain '..'");
        }
        (false, Some(_)) => report.add(&name, "can only be set when seccomp type is Localhost"),
        _ => {}
    }
}

fn apparmor(profile: Option<&AppArmorProfile>, field: &str, report: &mut Report<'_>) {
    let Some(profile) = profile else { return };
    let name = format!("{field}.localhostProfile");
    kind(&profile.type_, "appArmorProfile", field, report);
    match (profile.type_ == "Localhost", profile.localhost_profile.as_deref()) {
        (true, Some(given)) if given.trim() != given => {
            report.add(&name, "must not be padded with whitespace");
        }
        (true, None | Some("")) => report.add(&name, "must be set when AppArmor type is Localhost"),
        (true, Some(given)) if given.len() > LONGEST_PROFILE => {
            report.add(&name, format!("may not be more than {LONGEST_PROFILE} bytes"));
        }
        (false, Some(_)) => report.add(&name, "can only be set when AppArmor type is Localhost"),
        _ => {}
    }
}

fn kind(kind: &str, what: &str, field: &str, report: &mut Report<'_>) {
    let field = format!("{field}.type");
    if kind.is_empty() {
        return report.add(&field, format!("type is required when {what} is set"));
    }
    report.one_of(&field, kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
}

fn sysctls(security: &PodSecurityContext, spec: &PodSpec, report: &mut Report<'_>) {
    let mut names = HashSet::new();
    for (index, one) in security.sysctls.iter().flatten().enumerate() {
        let field = format!("spec.securityContext.sysctls[{index}].name");
        if one.name.is_empty() {
            report.add(&field, "is missing");
        } else if !sysctl::is_name(&one.name) {
            let form = "must have at most 253 characters: parts of lower case letters, digits, '-' and '_' that begin \
                        and end with a letter or digit, with '.' or '/' between them";
            report.add(&field, format!("\"{}\" {form}", one.name));
        } else if !names.insert(sysctl::normalize(&one.name)) {
            report.add(&field, format!("\"{}\" is set twice", one.name));
        } else {
            match sysctl::namespace(&sysctl::normalize(&one.name)) {
                Some(Namespace::Net) if spec.host_network == Some(true) => {
                    report.add(&field, "may not be specified when 'hostNetwork' is true");
                }
                Some(Namespace::Ipc) if spec.host_ipc == Some(true) => {
                    report.add(&field, "may not be specified when 'hostIPC' is true");
                }
                _ => {}
            }
        }
    }
}

/// Annotations name containers of the pod and agree with the fields.
fn annotations(annotations: &BTreeMap<String, String>, spec: &PodSpec, report: &mut Report<'_>) {
    let all = || spec.init_containers.iter().flatten().chain(&spec.containers);
    for (key, value) in annotations {
        let field = format!("metadata.annotations[{key}]");
        if let Some(name) = key.strip_prefix(APPARMOR_ANNOTATION) {
            match all().find(|container| container.name == name) {
                None => report.add(&field, format!("container \"{name}\" not found")),
                Some(container) => apparmor_annotation(value, container, &field, report),
            }
        } else if let Some(name) = key.strip_prefix(SECCOMP_CONTAINER) {
            let container = all().find(|container| container.name == name);
            let security = container.and_then(|c| c.security_context.as_ref());
            let profile = security.and_then(|s| s.seccomp_profile.as_ref());
            seccomp_annotation(value, profile, &field, report);
        } else if key == SECCOMP_POD {
            let security = spec.security_context.as_ref();
            let profile = security.and_then(|s| s.seccomp_profile.as_ref());
            seccomp_annotation(value, profile, &field, report);
        }
    }
}

fn apparmor_annotation(value: &str, container: &Container, field: &str, report: &mut Report<'_>) {
    let kind = match value {
        "" | "runtime/default" => "RuntimeDefault",
        "unconfined" => "Unconfined",
        other if other.starts_with("localhost/") => "Localhost",
        other => return report.add(field, format!("invalid AppArmor profile name: \"{other}\"")),
    };
    let security = container.security_context.as_ref();
    let Some(profile) = security.and_then(|s| s.app_armor_profile.as_ref()) else { return };
    let named = profile.localhost_profile.as_deref();
    if profile.type_ != kind {
        report.add(field, "apparmor type in annotation and field must match");
    } else if kind == "Localhost" && value.strip_prefix("localhost/") != named {
        report.add(field, "apparmor profile in annotation and field must match");
    }
}

/// An annotation without a field means nothing any more.
fn seccomp_annotation(value: &str, profile: Option<&SeccompProfile>, field: &str, report: &mut Report<'_>) {
    let Some(profile) = profile else { return };
    let kind = match value {
        "unconfined" => "Unconfined",
        "runtime/default" | "docker/default" => "RuntimeDefault",
        other if other.starts_with("localhost/") => "Localhost",
        _ => "",
    };
    let named = profile.localhost_profile.as_deref();
    if profile.type_ != kind {
        report.add(field, "seccomp type in annotation and field must match");
    } else if kind == "Localhost" && value.strip_prefix("localhost/") != named {
        report.add(field, "seccomp profile in annotation and field must match");
    }
}
