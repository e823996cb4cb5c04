//! The API's defaults for the fields podstead supports, made visible in the pod. Pure.
//! Rules: `kubelet-static-pods.md 1.3`.

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec,
    ResourceRequirements, Volume,
};

use super::default_probes;
use super::default_resources;

/// Mode of files that the agent writes.
const FILE_MODE: i32 = 0o644;

/// Fills in every default.
pub(crate) fn apply(pod: &mut Pod) {
    let Some(spec) = pod.spec.as_mut() else { return };
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".into());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.security_context.get_or_insert_with(PodSecurityContext::default);
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".into());
    spec.enable_service_links.get_or_insert(true);
    for volume in spec.volumes.iter_mut().flatten() {
        self::volume(volume);
    }
    let host_network = spec.host_network == Some(true);
    for container in containers_mut(spec) {
        self::container(container, host_network);
    }
    default_resources::pod(spec);
}

fn containers_mut(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten())
}

fn volume(volume: &mut Volume) {
    if let Some(host) = volume.host_path.as_mut() {
        host.type_.get_or_insert_default();
    } else if let Some(downward) = volume.downward_api.as_mut() {
        downward.default_mode.get_or_insert(FILE_MODE);
        downward.items.iter_mut().flatten().filter_map(|f| f.field_ref.as_mut()).for_each(version);
    } else if let Some(projected) = volume.projected.as_mut() {
        projected.default_mode.get_or_insert(FILE_MODE);
        let parts = projected.sources.iter_mut().flatten().filter_map(|s| s.downward_api.as_mut());
        let files = parts.flat_map(|part| part.items.iter_mut().flatten());
        files.filter_map(|f| f.field_ref.as_mut()).for_each(version);
    } else if let Some(image) = volume.image.as_mut() {
        if image.pull_policy.as_deref().unwrap_or_default().is_empty() {
            let reference = image.reference.as_deref().unwrap_or_default();
            image.pull_policy = Some(pull_policy(reference).into());
        }
    } else if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
}

fn version(selector: &mut ObjectFieldSelector) {
    selector.api_version.get_or_insert_with(|| "v1".into());
}

fn container(container: &mut Container, host_network: bool) {
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
    container.termination_message_policy.get_or_insert_with(|| "File".into());
    if container.image_pull_policy.as_deref().unwrap_or_default().is_empty() {
        let image = container.image.as_deref().unwrap_or_default();
        container.image_pull_policy = Some(pull_policy(image).into());
    }
    let sources = container.env.iter_mut().flatten().filter_map(|v| v.value_from.as_mut());
    sources.filter_map(|from| from.field_ref.as_mut()).for_each(version);
    default_probes::probes(container);
    let hooks = container.lifecycle.iter_mut().flat_map(|l| [&mut l.post_start, &mut l.pre_stop]);
    hooks.flatten().filter_map(|hook| hook.http_get.as_mut()).for_each(default_probes::http_get);
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".into());
        if host_network && port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
    }
    if let Some(resources) = container.resources.as_mut() {
        requests(resources);
    }
}

/// A limit without a request is also the request.
fn requests(resources: &mut ResourceRequirements) {
    let Some(limits) = &resources.limits else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// `Always` for the tag `latest`, written or implied, else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    let (named, digest) = match image.split_once('@') {
        Some((named, _)) => (named, true),
        None => (image, false),
    };
    let last = named.rsplit('/').next().unwrap_or(named);
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_latest_is_pulled_always() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry.example:5000/nginx", "Always"),
            ("registry.example:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:0123", "IfNotPresent"),
            ("nginx:1@sha256:0123", "IfNotPresent"),
            ("nginx:latest@sha256:0123", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
