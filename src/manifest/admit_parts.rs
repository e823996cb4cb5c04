//! Validation of volumes, mounts and resources. Pure; the rest of the rules stand in `admit`.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, ResourceRequirements, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::admit::Report;
use super::check::nearest;
use crate::quantity::Amount;

const HOST_PATH_TYPES: &[&str] =
    &["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];

/// A volume has exactly one source; only those podstead supports come this far.
pub(super) fn volume(volume: &Volume, field: &str, report: &mut Report<'_>) {
    match (&volume.host_path, &volume.empty_dir) {
        (Some(_), Some(_)) => report.add(field, "has two sources, hostPath and emptyDir; give one"),
        (Some(host), None) => host_path(host, &format!("{field}.hostPath"), report),
        (None, Some(_)) => {}
        (None, None) => report.add(field, "has no source that podstead supports; give hostPath or emptyDir"),
    }
    if volume.projected.is_some() && (volume.host_path.is_some() || volume.empty_dir.is_some()) {
        report.add(field, "has two sources; give one");
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

/// Mounts refer to volumes and do not cover each other.
pub(super) fn mounts(container: &Container, field: &str, volumes: &HashSet<&str>, report: &mut Report<'_>) {
    let mut taken: HashMap<String, usize> = HashMap::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let field = format!("{field}.volumeMounts[{index}]");
        let path = format!("{field}.mountPath");
        if mount.name.is_empty() {
            report.add(&format!("{field}.name"), "is missing; it names the volume");
        } else if !volumes.contains(mount.name.as_str()) {
            let message = format!("no volume of this pod has the name \"{}\"", mount.name);
            let near = nearest(&mount.name, volumes.iter().copied());
            report.add_with(&format!("{field}.name"), message, near);
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
    }
}

/// Quantities are valid, known, not negative, and requests stay within limits.
pub(super) fn resources(resources: Option<&ResourceRequirements>, field: &str, report: &mut Report<'_>) {
    let Some(resources) = resources else { return };
    let limits = amounts(resources.limits.iter().flatten(), &format!("{field}.limits"), report);
    // A request that was defaulted from its limit is not reported a second time.
    let own = resources.requests.iter().flatten().filter(|(name, request)| {
        resources.limits.as_ref().and_then(|limits| limits.get(*name)) != Some(*request)
    });
    let requests = amounts(own, &format!("{field}.requests"), report);
    for (name, (request, text)) in &requests {
        if let Some((limit, limit_text)) = limits.get(name)
            && request > limit
        {
            let message = format!("{text} is more than the limit, {limit_text}");
            report.add(&format!("{field}.requests[{name}]"), message);
        }
    }
}

type Amounts<'q> = BTreeMap<&'q str, (Amount, &'q str)>;

fn amounts<'q>(
    quantities: impl Iterator<Item = (&'q String, &'q Quantity)>,
    field: &str,
    report: &mut Report<'_>,
) -> Amounts<'q> {
    let mut amounts = Amounts::new();
    for (name, Quantity(text)) in quantities {
        let field = format!("{field}[{name}]");
        if !matches!(name.as_str(), "cpu" | "memory") {
            let version = env!("CARGO_PKG_VERSION");
            report.add(
                &field,
                format!("not supported yet by podstead {version}: resources but cpu and memory"),
            );
            continue;
        }
        match text.parse::<Amount>() {
            Err(error) => report.add(&field, error.to_string()),
            Ok(amount) if amount.nano() < 0 => report.add(&field, "must not be negative"),
            Ok(amount) => {
                amounts.insert(name, (amount, text));
            }
        }
    }
    amounts
}
