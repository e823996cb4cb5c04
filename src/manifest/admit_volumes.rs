//! Validation of volumes and mounts. Pure; the rest of the rules stand in `admit`.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, ImageVolumeSource, PodSpec,
    ProjectedVolumeSource, Volume, VolumeMount,
};

use super::admit::Report;
use super::admit_env as env;
use super::check::nearest;
use super::names;
use crate::pod::downward::FILE_FIELDS;
use crate::pod::volumes::huge_page_sizes;
use crate::quantity::Amount;

const HOST_PATH_TYPES: &[&str] =
    &["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];

/// Checks the volumes and returns their names.
pub(super) fn volumes<'v>(spec: &'v PodSpec, report: &mut Report<'_>) -> HashSet<&'v str> {
    let mut names = HashMap::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let field = format!("spec.volumes[{index}]");
        match volume.name.as_str() {
            "" => report.add(&format!("{field}.name"), "is missing; a volume needs a name"),
            name => report.verdict(&format!("{field}.name"), names::label(name)),
        }
        if let Some(first) = names.insert(volume.name.as_str(), index) {
            let message = format!("\"{}\" is also the name of spec.volumes[{first}]", volume.name);
            report.add(&format!("{field}.name"), message);
        }
        self::volume(spec, volume, &field, report);
    }
    names.into_keys().collect()
}

/// A volume has exactly one source; only those podstead supports come this far.
fn volume(spec: &PodSpec, volume: &Volume, field: &str, report: &mut Report<'_>) {
    let sources = [
        ("hostPath", volume.host_path.is_some()),
        ("emptyDir", volume.empty_dir.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("projected", volume.projected.is_some()),
        ("image", volume.image.is_some()),
    ];
    let given: Vec<&str> = sources.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    match given[..] {
        [] => report.add(field, "has no source that podstead supports"),
        [_] => {}
        [first, second, ..] => {
            report.add(field, format!("has two sources, {first} and {second}; give one"));
        }
    }
    if let Some(host) = &volume.host_path {
        host_path(host, &format!("{field}.hostPath"), report);
    }
    if let Some(empty) = &volume.empty_dir {
        empty_dir(spec, empty, &format!("{field}.emptyDir"), report);
    }
    if let Some(downward) = &volume.downward_api {
        let field = format!("{field}.downwardAPI");
        mode(downward.default_mode, &format!("{field}.defaultMode"), report);
        let mut paths = BTreeMap::new();
        for (index, file) in downward.items.iter().flatten().enumerate() {
            downward_file(spec, file, &format!("{field}.items[{index}]"), &mut paths, report);
        }
    }
    if let Some(projected) = &volume.projected {
        self::projected(spec, projected, &format!("{field}.projected"), report);
    }
    if let Some(image) = &volume.image {
        self::image(image, &format!("{field}.image"), report);
    }
}

fn host_path(host: &HostPathVolumeSource, field: &str, report: &mut Report<'_>) {
    let path = format!("{field}.path");
    if host.path.is_empty() {
        report.add(&path, "is missing");
    } else if !host.path.starts_with('/') {
        report.add(&path, format!("\"{}\" must be absolute", host.path));
    } else if goes_up(&host.path) {
        report.add(&path, format!("\"{}\" may not contain ..", host.path));
    }
    if let Some(kind) = &host.type_ {
        report.one_of(&format!("{field}.type"), kind, HOST_PATH_TYPES);
    }
}

fn goes_up(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

fn empty_dir(spec: &PodSpec, empty: &EmptyDirVolumeSource, field: &str, report: &mut Report<'_>) {
    let medium = empty.medium.as_deref().unwrap_or_default();
    let at = format!("{field}.medium");
    match medium.strip_prefix("HugePages") {
        Some(size) if size.is_empty() || size.strip_prefix('-').is_some_and(is_positive) => {
            match huge_page_sizes(spec, medium)[..] {
                [_] => {}
                [] => report
                    .add(&at, "hugePages storage requested, but there is no resource request for huge pages"),
                _ => report.add(
                    &at,
                    "medium HugePages can't be used if container requests multiple huge page sizes",
                ),
            }
        }
        _ if matches!(medium, "" | "Memory") => {}
        _ => report.add(&at, format!("\"{medium}\" is not one of Memory, HugePages, HugePages-<size>")),
    }
    if let Some(limit) = &empty.size_limit {
        match limit.0.parse::<Amount>() {
            Err(error) => report.add(&format!("{field}.sizeLimit"), error.to_string()),
            Ok(amount) if amount.nano() < 0 => {
                report.add(&format!("{field}.sizeLimit"), "must not be negative");
            }
            Ok(_) => {}
        }
    }
}

fn is_positive(quantity: &str) -> bool {
    quantity.parse::<Amount>().is_ok_and(|amount| amount.nano() > 0)
}

fn mode(mode: Option<i32>, field: &str, report: &mut Report<'_>) {
    if mode.is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        report.add(field, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// Paths of files in one volume, and the fields that name them.
type Paths = BTreeMap<String, String>;

fn downward_file(
    spec: &PodSpec,
    file: &DownwardAPIVolumeFile,
    field: &str,
    paths: &mut Paths,
    report: &mut Report<'_>,
) {
    path_in_volume(&file.path, field, paths, report);
    mode(file.mode, &format!("{field}.mode"), report);
    if let Some(selector) = &file.field_ref {
        env::field(selector, FILE_FIELDS, &format!("{field}.fieldRef"), report);
        if file.resource_field_ref.is_some() {
            report.add(field, "fieldRef and resourceFieldRef can not be specified simultaneously");
        }
    } else if let Some(selector) = &file.resource_field_ref {
        let field = format!("{field}.resourceFieldRef");
        if selector.container_name.as_deref().unwrap_or_default().is_empty() {
            report.add(&format!("{field}.containerName"), "is missing; a volume belongs to no container");
        }
        env::resource(spec, selector, &field, report);
    } else {
        report.add(field, "one of fieldRef and resourceFieldRef is required");
    }
}

fn path_in_volume(path: &str, field: &str, paths: &mut Paths, report: &mut Report<'_>) {
    let at = format!("{field}.path");
    if path.is_empty() {
        return report.add(&at, "is missing");
    }
    env::non_reserved(path, &at, report);
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let path = parts.join("/");
    if path.is_empty() {
        return report.add(&at, "names no file");
    }
    let within = |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
    let taken = paths
        .iter()
        .find(|(other, _)| **other == path || within(other.as_str(), &path) || within(&path, other.as_str()));
    if let Some((other, first)) = taken {
        report.add(&at, format!("conflicting duplicate paths: {first} has \"{other}\""));
    } else {
        paths.insert(path, field.to_owned());
    }
}

fn projected(spec: &PodSpec, projected: &ProjectedVolumeSource, field: &str, report: &mut Report<'_>) {
    mode(projected.default_mode, &format!("{field}.defaultMode"), report);
    let mut paths = Paths::new();
    for (index, source) in projected.sources.iter().flatten().enumerate() {
        let field = format!("{field}.sources[{index}]");
        // The other kinds are refused where they stand.
        let Some(downward) = &source.downward_api else { continue };
        for (index, file) in downward.items.iter().flatten().enumerate() {
            let field = format!("{field}.downwardAPI.items[{index}]");
            downward_file(spec, file, &field, &mut paths, report);
        }
    }
}

fn image(image: &ImageVolumeSource, field: &str, report: &mut Report<'_>) {
    match image.reference.as_deref().unwrap_or_default() {
        "" => report.add(&format!("{field}.reference"), "is missing; it names the image"),
        reference if reference.trim() != reference => {
            report.add(&format!("{field}.reference"), "must not have leading or trailing whitespace");
        }
        _ => {}
    }
    if let Some(policy) = &image.pull_policy {
        report.one_of(&format!("{field}.pullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    }
}

/// The group that volumes belong to.
pub(super) fn fs_group(spec: &PodSpec, report: &mut Report<'_>) {
    let Some(security) = &spec.security_context else { return };
    if security.fs_group.is_some_and(|group| !(0..=i64::from(i32::MAX)).contains(&group)) {
        report.add("spec.securityContext.fsGroup", "must be between 0 and 2147483647, inclusive");
    }
    if let Some(policy) = &security.fs_group_change_policy {
        let field = "spec.securityContext.fsGroupChangePolicy";
        report.one_of(field, policy, &["Always", "OnRootMismatch"]);
    }
}

/// Mounts refer to volumes and do not cover each other.
pub(super) fn mounts(container: &Container, field: &str, volumes: &HashSet<&str>, report: &mut Report<'_>) {
    let mut taken: HashMap<String, usize> = HashMap::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let field = format!("{field}.volumeMounts[{index}]");
        let path = format!("{field}.mountPath");
        if mount.name.is_empty() {
            report.add(&format!("{field}.name"), "is missing; it names the volume");
        } else {
            known(&mount.name, &format!("{field}.name"), volumes.iter().copied(), report);
        }
        let parts: Vec<&str> = mount.mount_path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        if mount.mount_path.is_empty() {
            report.add(&path, "is missing");
        } else if mount.mount_path.contains(':') {
            report.add(&path, "may not contain ':'");
        } else if goes_up(&mount.mount_path) {
            report.add(&path, format!("\"{}\" may not contain ..", mount.mount_path));
        } else if parts.is_empty() {
            report.add(&path, "a volume cannot take the place of the whole root file system");
        } else if let Some(first) = taken.insert(parts.join("/"), index) {
            report.add(&path, format!("\"{}\" is already taken by volumeMounts[{first}]", mount.mount_path));
        }
        part(mount, &field, report);
        modes(container, mount, &field, report);
    }
}

/// An error unless the pod has a volume of this name.
pub(super) fn known<'v>(
    name: &str,
    field: &str,
    mut volumes: impl Iterator<Item = &'v str> + Clone,
    report: &mut Report<'_>,
) {
    if !volumes.clone().any(|volume| volume == name) {
        let near = nearest(name, &mut volumes);
        report.add_with(field, format!("no volume of this pod has the name \"{name}\""), near);
    }
}

fn part(mount: &VolumeMount, field: &str, report: &mut Report<'_>) {
    let path = mount.sub_path.as_deref().unwrap_or_default();
    let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
    env::descending(path, &format!("{field}.subPath"), report);
    env::descending(expression, &format!("{field}.subPathExpr"), report);
    if !path.is_empty() && !expression.is_empty() {
        report.add(&format!("{field}.subPathExpr"), "subPathExpr and subPath are mutually exclusive");
    }
}

fn modes(container: &Container, mount: &VolumeMount, field: &str, report: &mut Report<'_>) {
    if let Some(propagation) = &mount.mount_propagation {
        let field = format!("{field}.mountPropagation");
        report.one_of(&field, propagation, &["Bidirectional", "HostToContainer", "None"]);
        let security = container.security_context.as_ref();
        if propagation == "Bidirectional" && security.and_then(|s| s.privileged) != Some(true) {
            report.add(&field, "Bidirectional mount propagation is available only to privileged containers");
        }
    }
    let Some(recursive) = &mount.recursive_read_only else { return };
    let field = format!("{field}.recursiveReadOnly");
    report.one_of(&field, recursive, &["Disabled", "Enabled", "IfPossible"]);
    if matches!(recursive.as_str(), "Enabled" | "IfPossible") {
        if mount.read_only != Some(true) {
            report.add(&field, "may only be specified when readOnly is true");
        }
        if mount.mount_propagation.as_deref().is_some_and(|propagation| propagation != "None") {
            report.add(&field, "may only be specified when mountPropagation is None or not specified");
        }
    }
}
