//! Validation of variables and of what they and files may be told of the pod. Pure; the rest of the rules stand in `admit`.

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, FileKeySelector, ObjectFieldSelector, PodSpec, ResourceFieldSelector,
};

use super::admit::Report;
use super::admit_volumes as volumes;
use super::check::nearest;
use super::names;
use crate::pod::downward::{HUGE_PAGES, KEYED_FIELDS, RESOURCES, VARIABLE_FIELDS, split_key};
use crate::quantity::Amount;

const CPU_DIVISORS: &[&str] = &["1m", "1"];
const DIVISORS: &[&str] =
    &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// One variable.
pub(super) fn variable(spec: &PodSpec, variable: &EnvVar, field: &str, report: &mut Report<'_>) {
    report.verdict(&format!("{field}.name"), names::variable(&variable.name));
    let Some(from) = &variable.value_from else { return };
    let field = format!("{field}.valueFrom");
    let sources = [from.field_ref.is_some(), from.resource_field_ref.is_some(), from.file_key_ref.is_some()];
    match sources.into_iter().filter(|given| *given).count() {
        0 => report.add(&field, "names no source"),
        _ if !variable.value.as_deref().unwrap_or_default().is_empty() => {
            report.add(&field, "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => report.add(&field, "may not have more than one field specified at a time"),
    }
    if let Some(selector) = &from.field_ref {
        self::field(selector, VARIABLE_FIELDS, &format!("{field}.fieldRef"), report);
    }
    if let Some(selector) = &from.resource_field_ref {
        resource(spec, selector, &format!("{field}.resourceFieldRef"), report);
    }
    if let Some(selector) = &from.file_key_ref {
        file_key(spec, selector, &format!("{field}.fileKeyRef"), report);
    }
}

/// Variables out of an object.
pub(super) fn set(source: &EnvFromSource, field: &str, report: &mut Report<'_>) {
    if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        report.verdict(&format!("{field}.prefix"), names::variable(prefix));
    }
    match (&source.config_map_ref, &source.secret_ref) {
        (None, None) => report.add(field, "must specify one of: `configMapRef` or `secretRef`"),
        (Some(_), Some(_)) => report.add(field, "may not have more than one field specified at a time"),
        (Some(_), None) | (None, Some(_)) => {}
    }
}

/// A field of the pod: one of `known`, or a label or annotation.
pub(super) fn field(selector: &ObjectFieldSelector, known: &[&str], field: &str, report: &mut Report<'_>) {
    if let Some(version) = selector.api_version.as_deref().filter(|version| *version != "v1") {
        return report.add(&format!("{field}.apiVersion"), format!("unsupported pod version: {version}"));
    }
    let at = format!("{field}.fieldPath");
    let path = selector.field_path.as_str();
    match split_key(path) {
        _ if path.is_empty() => report.add(&at, "is missing; it names the field"),
        None => report.one_of(&at, path, known),
        Some((path, _)) if !KEYED_FIELDS.contains(&path) => {
            report.add(&at, format!("\"{path}\" does not support subscript"));
        }
        Some(("metadata.annotations", key)) => report.verdict(&at, names::qualified(&key.to_lowercase())),
        Some((_, key)) => report.verdict(&at, names::qualified(key)),
    }
}

/// A resource of a container.
pub(super) fn resource(
    spec: &PodSpec,
    selector: &ResourceFieldSelector,
    field: &str,
    report: &mut Report<'_>,
) {
    let resource = selector.resource.as_str();
    let huge = HUGE_PAGES.iter().any(|beginning| resource.starts_with(beginning));
    if resource.is_empty() {
        report.add(&format!("{field}.resource"), "is missing");
    } else if !huge {
        report.one_of(&format!("{field}.resource"), resource, RESOURCES);
    }
    if let Some(name) = selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let names: Vec<&str> = all.map(|c| c.name.as_str()).collect();
        if !names.contains(&name) {
            let near = nearest(name, names.into_iter());
            let message = format!("no container of this pod has the name \"{name}\"");
            report.add_with(&format!("{field}.containerName"), message, near);
        }
    }
    if let Some(divisor) = &selector.divisor {
        self::divisor(resource, &divisor.0, &format!("{field}.divisor"), report);
    }
}

fn divisor(resource: &str, divisor: &str, field: &str, report: &mut Report<'_>) {
    let amount = match divisor.parse::<Amount>() {
        Err(error) => return report.add(field, error.to_string()),
        Ok(amount) => amount,
    };
    let name = resource.split_once('.').map_or(resource, |(_, name)| name);
    let cpu = name == "cpu";
    let known = if cpu { CPU_DIVISORS } else { DIVISORS };
    let fits = known.iter().any(|known| known.parse::<Amount>() == Ok(amount));
    if amount.nano() == 0 || fits {
        return;
    }
    let known = if cpu { known.join(" and ") } else { known.join(", ") };
    report.add(field, format!("only divisor's values {known} are supported with the {name} resource"));
}

fn file_key(spec: &PodSpec, selector: &FileKeySelector, field: &str, report: &mut Report<'_>) {
    match selector.key.as_str() {
        "" => report.add(&format!("{field}.key"), "is missing; it names the variable in the file"),
        key => report.verdict(&format!("{field}.key"), names::variable(key)),
    }
    match selector.path.as_str() {
        "" => report.add(&format!("{field}.path"), "is missing; it names the file in the volume"),
        path => non_reserved(path, &format!("{field}.path"), report),
    }
    let at = format!("{field}.volumeName");
    let all = spec.volumes.as_deref().unwrap_or_default();
    if selector.volume_name.is_empty() {
        return report.add(&at, "is missing; it names the volume");
    }
    match all.iter().find(|volume| volume.name == selector.volume_name) {
        None => volumes::known(&selector.volume_name, &at, all.iter().map(|v| v.name.as_str()), report),
        Some(volume) if volume.empty_dir.is_none() => {
            report.add(&at, "referenced volume must be of type emptyDir");
        }
        Some(_) => {}
    }
}

/// A path that stays below where it begins.
pub(super) fn descending(path: &str, field: &str, report: &mut Report<'_>) {
    if path.starts_with('/') {
        report.add(field, format!("\"{path}\" must be a relative path"));
    }
    if path.split('/').any(|part| part == "..") {
        report.add(field, format!("\"{path}\" must not contain '..'"));
    }
}

/// The same, and no name that volumes have for themselves.
pub(super) fn non_reserved(path: &str, field: &str, report: &mut Report<'_>) {
    descending(path, field, report);
    if path.starts_with("..") && !path.split('/').any(|part| part == "..") {
        report.add(field, format!("\"{path}\" must not start with '..'"));
    }
}
