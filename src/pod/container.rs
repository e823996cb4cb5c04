//! Container of a pod -> [`ContainerSpec`] (`kubelet-static-pods.md 2.8, 4.3-4.5`). Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use podstead_runtime::security::UserNamespace;
use podstead_runtime::{ContainerSpec, ImageSpec, Mount, labels};
use thiserror::Error;

use super::objects::LocalObjects;
use super::{NodeFacts, env, identity, resources, security, volumes};

/// A container's spec cannot be said: the kubelet's `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A variable of its environment.
    #[error(transparent)]
    Variable(#[from] env::VariableError),
    /// One of its mounts.
    #[error(transparent)]
    Mount(#[from] volumes::MountError),
}

/// What of a container only the moment of its creation knows.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// Attempt, equal to the restart count.
    pub attempt: u32,
    /// The image's id as resolved.
    pub image_id: String,
    /// Who the image runs its programs as.
    pub image_user: security::ImageUser,
    /// The sandbox's addresses.
    pub ips: Vec<IpAddr>,
    /// The files of variables that it refers to ([`env::files_needed`]).
    pub env_files: env::EnvFiles,
    /// The pod's `/etc/hosts` on the host, when there is one to mount.
    pub hosts_file: Option<PathBuf>,
    /// The pod's user namespace, if it has one of its own.
    pub users: Option<UserNamespace>,
    /// The file for its termination message on the host, when there is one to mount.
    pub message_file: Option<PathBuf>,
    /// Annotations decided with the step (restart count, hash, back-off).
    pub annotations: BTreeMap<String, String>,
}

/// The container's spec.
pub fn container_spec(
    node: &NodeFacts,
    pod: &Pod,
    container: &Container,
    instance: &Instance,
) -> Result<ContainerSpec, ConfigError> {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let id = identity::identity(pod);
    let objects = LocalObjects::default();
    let sources =
        env::Sources { node, pod, ips: &instance.ips, files: &instance.env_files, objects: &objects };
    let environment = env::environment(container, &sources)?;
    let mut mounts = volumes::mounts(node, pod, container, &environment)?;
    let hosts = instance.hosts_file.clone().map(|file| ("/etc/hosts", file));
    let message = instance.message_file.clone().map(|file| (message_path(container), file));
    for (at, source) in hosts.into_iter().chain(message) {
        let destination = PathBuf::from(at);
        if mounts.iter().all(|m| m.destination != destination) {
            mounts.push(Mount { destination, source, selinux_relabel: true, ..Mount::default() });
        }
    }
    // What is on the disk bears the ids that the container sees, as without a user namespace.
    if let Some(users) = &instance.users {
        for mount in &mut mounts {
            (mount.uid_mappings, mount.gid_mappings) = (users.uids.clone(), users.gids.clone());
        }
    }
    let mut security = security::container(node, pod, container, &instance.image_user);
    security.namespaces.user.clone_from(&instance.users);
    Ok(ContainerSpec {
        name: container.name.clone(),
        attempt: instance.attempt,
        image: image_spec(pod, container),
        image_id: instance.image_id.clone(),
        command: env::expand_all(container.command.as_ref(), &environment),
        args: env::expand_all(container.args.as_ref(), &environment),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        env: environment,
        mounts,
        labels: BTreeMap::from([
            (labels::POD_NAME.to_owned(), id.name),
            (labels::POD_NAMESPACE.to_owned(), id.namespace),
            (labels::POD_UID.to_owned(), id.uid.0),
            (labels::CONTAINER_NAME.to_owned(), container.name.clone()),
        ]),
        annotations: annotations(spec, container, instance),
        log_path: PathBuf::from(&container.name).join(format!("{}.log", instance.attempt)),
        resources: resources::container(node, spec, container),
        stop_signal: container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()).unwrap_or_default(),
        security,
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        ..ContainerSpec::default()
    })
}

/// The image as asked for, with the pod's annotations for the runtime's eyes.
pub fn image_spec(pod: &Pod, container: &Container) -> ImageSpec {
    ImageSpec {
        image: with_tag(container.image.as_deref().unwrap_or_default()),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        runtime_handler: String::new(),
    }
}

/// Whether an init container goes on beside the others (`kubelet-static-pods.md 2.5`).
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// A name without tag and digest means its `latest` (`kubelet-static-pods.md 2.7`).
pub fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if image.contains('@') || last.contains(':') { image.to_owned() } else { format!("{image}:latest") }
}

/// Where the container writes its termination message.
fn message_path(container: &Container) -> &str {
    container.termination_message_path.as_deref().unwrap_or("/dev/termination-log")
}

fn annotations(spec: &PodSpec, container: &Container, instance: &Instance) -> BTreeMap<String, String> {
    let mut all = instance.annotations.clone();
    let set = |all: &mut BTreeMap<String, String>, key: &str, value: &str| {
        all.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    };
    set(&mut all, labels::RESTART_COUNT, &instance.attempt.to_string());
    set(&mut all, labels::TERMINATION_PATH, message_path(container));
    set(
        &mut all,
        labels::TERMINATION_POLICY,
        container.termination_message_policy.as_deref().unwrap_or("File"),
    );
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    set(&mut all, labels::TERMINATION_GRACE, &grace.to_string());
    if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) {
        set(&mut all, labels::PRE_STOP, &serde_json::to_string(hook).unwrap_or_default());
    }
    if let Some(ports) = container.ports.as_ref().filter(|p| !p.is_empty()) {
        set(&mut all, labels::CONTAINER_PORTS, &serde_json::to_string(ports).unwrap_or_default());
    }
    all
}

#[cfg(test)]
mod tests {
    use podstead_runtime::security::IdMapping;

    use super::*;

    #[test]
    fn an_image_without_a_tag_means_latest() {
        assert_eq!(with_tag("nginx"), "nginx:latest");
        assert_eq!(with_tag("host:5000/nginx"), "host:5000/nginx:latest");
        assert_eq!(with_tag("nginx:1"), "nginx:1");
        assert_eq!(with_tag("nginx@sha256:00"), "nginx@sha256:00");
    }

    fn pod(container: &str) -> Pod {
        let text = format!(
            "metadata: {{name: web-node, namespace: default, uid: u1}}\n\
             spec: {{terminationGracePeriodSeconds: 7, volumes: [{{name: v, hostPath: {{path: /h}}}}], containers: [{container}]}}"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    fn spec(pod: &Pod, instance: &Instance) -> ContainerSpec {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        container_spec(&NodeFacts::default(), pod, container, instance).unwrap()
    }

    #[test]
    fn command_and_arguments_expand_with_the_environment_and_the_rest_is_passed_on() {
        let text = "{name: c, image: i, command: [\"$(A)\"], args: [\"$$(A)\"], workingDir: /w, env: [{name: A, value: x}]}";
        let made = spec(&pod(text), &Instance { attempt: 3, image_id: "id".into(), ..Instance::default() });
        assert_eq!((&made.command[..], &made.args[..]), (&["x".to_owned()][..], &["$(A)".to_owned()][..]));
        assert_eq!((made.working_dir.as_str(), made.image_id.as_str(), made.attempt), ("/w", "id", 3));
        assert_eq!(made.log_path, std::path::Path::new("c/3.log"));
        assert_eq!(made.image.image, "i:latest");
        assert_eq!(made.labels[labels::CONTAINER_NAME], "c");
    }

    #[test]
    fn streams_are_as_the_manifest_says() {
        let streams = |text: &str| {
            let made = spec(&pod(text), &Instance::default());
            (made.stdin, made.stdin_once, made.tty)
        };
        assert_eq!(streams("{name: c}"), (false, false, false));
        assert_eq!(streams("{name: c, stdin: true}"), (true, false, false));
        assert_eq!(streams("{name: c, stdinOnce: true}"), (false, true, false));
        assert_eq!(streams("{name: c, tty: true}"), (false, false, true));
    }

    #[test]
    fn a_container_remembers_what_its_end_needs() {
        let made = spec(&pod("{name: c, image: i, ports: [{containerPort: 80}]}"), &Instance::default());
        assert_eq!(made.annotations[labels::TERMINATION_GRACE], "7");
        assert_eq!(made.annotations[labels::RESTART_COUNT], "0");
        assert_eq!(made.annotations[labels::TERMINATION_PATH], "/dev/termination-log");
        assert_eq!(made.annotations[labels::CONTAINER_PORTS], "[{\"containerPort\":80}]");
    }

    #[test]
    fn the_pods_hosts_file_is_mounted_unless_the_manifest_has_its_own() {
        let instance = Instance { hosts_file: Some("/p/etc-hosts".into()), ..Instance::default() };
        let hosts = |text: &str| {
            let mounts = spec(&pod(text), &instance).mounts;
            let at = mounts.iter().filter(|m| m.destination == std::path::Path::new("/etc/hosts"));
            at.map(|m| (m.source.display().to_string(), m.read_only)).collect::<Vec<_>>()
        };
        assert_eq!(hosts("{name: c}"), [("/p/etc-hosts".to_owned(), false)]);
        let own = "{name: c, volumeMounts: [{name: v, mountPath: /etc/hosts, readOnly: true}]}";
        assert_eq!(hosts(own), [("/h".to_owned(), true)]);
    }

    #[test]
    fn a_mount_of_an_unknown_volume_names_both() {
        let mount = k8s_openapi::api::core::v1::VolumeMount {
            name: "data".into(),
            mount_path: "/data".into(),
            ..Default::default()
        };
        let container =
            Container { name: "c".into(), volume_mounts: Some(vec![mount]), ..Container::default() };
        let error = container_spec(&NodeFacts::default(), &Pod::default(), &container, &Instance::default())
            .unwrap_err();
        assert_eq!(error.to_string(), "cannot find volume \"data\" to mount into container \"c\"");
    }

    #[test]
    fn in_a_user_namespace_all_that_is_mounted_bears_its_ids() {
        let text = "metadata: {uid: u1}\nspec:\n  hostUsers: false\n  volumes: [{name: v, emptyDir: {}}, {name: i, image: {reference: x}}]\n  \
                    containers:\n  - {name: c, image: x, volumeMounts: [{name: v, mountPath: /v}, {name: i, mountPath: /i}]}";
        let pod: Pod = serde_yaml::from_str(text).unwrap();
        let ids = vec![IdMapping { container_id: 0, host_id: 131_072, length: 65_536 }];
        let users = Some(UserNamespace { uids: ids.clone(), gids: ids.clone() });
        let (hosts_file, message_file) = (Some("/h".into()), Some("/m".into()));
        let instance = Instance { users: users.clone(), hosts_file, message_file, ..Instance::default() };
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let spec = container_spec(&NodeFacts::default(), &pod, container, &instance).unwrap();
        assert_eq!((spec.mounts.len(), &spec.security.namespaces.user), (4, &users));
        assert!(spec.mounts.iter().all(|m| (&m.uid_mappings, &m.gid_mappings) == (&ids, &ids)));
        let plain = Instance { users: None, ..instance };
        let spec = container_spec(&NodeFacts::default(), &pod, container, &plain).unwrap();
        assert!(
            spec.mounts.iter().all(|m| m.uid_mappings.is_empty()) && spec.security.namespaces.user.is_none()
        );
    }
}
