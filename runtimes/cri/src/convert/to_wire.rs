//! Specs to requests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path};

use podstead_runtime::{
    Auth, ContainerSecurity, ContainerSpec, ImageSpec, LinuxResources, Mount, SandboxSecurity, SandboxSpec,
    labels,
};

use super::words;
use super::{ConvertError, IMAGE_AS_WRITTEN};
use crate::proto;

/// What of the node and the server a request depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Value of the owner's mark.
    pub owner: String,
    /// Cgroup parent of sandboxes whose spec names none. CRI-O gives those too small a share otherwise.
    pub cgroup_parent: String,
    /// Huge page sizes that can be limited here.
    pub hugepage_sizes: BTreeSet<String>,
}

/// A sandbox's configuration: with our mark, the kubelet's identity labels, and always a cgroup parent.
pub fn sandbox_config(spec: &SandboxSpec, node: &Node) -> Result<proto::PodSandboxConfig, ConvertError> {
    let mut labels = pod_labels(spec, &node.owner);
    for (key, value) in &spec.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let parent = if spec.cgroup_parent.is_empty() { &node.cgroup_parent } else { &spec.cgroup_parent };
    let resources_of = |resources: &Option<LinuxResources>| {
        resources.as_ref().map(|resources| self::resources(resources, &node.hugepage_sizes)).transpose()
    };
    Ok(proto::PodSandboxConfig {
        metadata: Some(proto::PodSandboxMetadata {
            name: spec.pod.name.clone(),
            uid: spec.pod.uid.0.clone(),
            namespace: spec.pod.namespace.clone(),
            attempt: spec.attempt,
        }),
        hostname: spec.hostname.clone(),
        log_directory: words::path("log directory", &spec.log_directory)?,
        dns_config: spec.dns.as_ref().map(|dns| proto::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        port_mappings: spec
            .port_mappings
            .iter()
            .map(|port| proto::PortMapping {
                protocol: words::protocol(port.protocol).into(),
                container_port: port.container_port.into(),
                host_port: port.host_port.into(),
                host_ip: port.host_ip.clone(),
            })
            .collect(),
        labels,
        annotations: wire_map(&spec.annotations),
        linux: Some(proto::LinuxPodSandboxConfig {
            cgroup_parent: parent.clone(),
            security_context: Some(sandbox_security(&spec.security)),
            sysctls: wire_map(&spec.sysctls),
            overhead: resources_of(&spec.overhead)?,
            resources: resources_of(&spec.resources)?,
        }),
        windows: None,
    })
}

fn sandbox_security(security: &SandboxSecurity) -> proto::LinuxSandboxSecurityContext {
    let mut wire = proto::LinuxSandboxSecurityContext {
        namespace_options: Some(words::namespaces(&security.namespaces)),
        selinux_options: security.selinux.as_ref().map(words::selinux),
        run_as_user: security.run_as_user.map(|value| proto::Int64Value { value }),
        run_as_group: security.run_as_group.map(|value| proto::Int64Value { value }),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: words::groups_policy(security.groups_policy).into(),
        privileged: security.privileged,
        seccomp: Some(words::profile(&security.seccomp)),
        ..Default::default()
    };
    wire.apparmor = security.apparmor.as_ref().map(words::profile);
    wire
}

/// A container's configuration: with our mark, the kubelet's labels (CRI-O's events need them), the image as
/// written beside the resolved one, and namespaces that agree with the sandbox's.
pub fn container_config(
    spec: &ContainerSpec,
    sandbox: &SandboxSpec,
    node: &Node,
) -> Result<proto::ContainerConfig, ConvertError> {
    check_log_path(&spec.log_path, &sandbox.log_directory)?;
    let mut labels = pod_labels(sandbox, &node.owner);
    labels.insert(labels::CONTAINER_NAME.to_owned(), spec.name.clone());
    for (key, value) in &spec.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let mut annotations = wire_map(&spec.annotations);
    annotations.insert(IMAGE_AS_WRITTEN.to_owned(), spec.image.image.clone());
    let mut image = image_spec(&spec.image);
    image.user_specified_image.clone_from(&spec.image.image);
    if !spec.image_id.is_empty() {
        image.image.clone_from(&spec.image_id);
    }
    Ok(proto::ContainerConfig {
        metadata: Some(proto::ContainerMetadata { name: spec.name.clone(), attempt: spec.attempt }),
        image: Some(image),
        command: spec.command.clone(),
        args: spec.args.clone(),
        working_dir: spec.working_dir.clone(),
        envs: spec
            .env
            .iter()
            .map(|env| proto::KeyValue { key: env.name.clone(), value: env.value.clone().into_bytes() })
            .collect(),
        mounts: spec.mounts.iter().map(mount).collect::<Result<_, _>>()?,
        devices: spec
            .devices
            .iter()
            .map(|device| {
                Ok(proto::Device {
                    container_path: words::path("device path", &device.container_path)?,
                    host_path: words::path("device path", &device.host_path)?,
                    permissions: device.permissions.clone(),
                })
            })
            .collect::<Result<_, _>>()?,
        labels,
        annotations,
        log_path: words::path("log path", &spec.log_path)?,
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        linux: Some(proto::LinuxContainerConfig {
            resources: Some(resources(&spec.resources, &node.hugepage_sizes)?),
            security_context: Some(container_security(&spec.security, sandbox)),
        }),
        windows: None,
        cdi_devices: spec.cdi_devices.iter().map(|name| proto::CdiDevice { name: name.clone() }).collect(),
        stop_signal: words::signal(&spec.stop_signal)?.into(),
    })
}

fn container_security(
    security: &ContainerSecurity,
    sandbox: &SandboxSpec,
) -> proto::LinuxContainerSecurityContext {
    let mut wire = proto::LinuxContainerSecurityContext {
        capabilities: Some(proto::Capability {
            add_capabilities: security.add_capabilities.clone(),
            drop_capabilities: security.drop_capabilities.clone(),
            add_ambient_capabilities: security.ambient_capabilities.clone(),
        }),
        privileged: security.privileged,
        namespace_options: Some(words::namespaces_within(&security.namespaces, &sandbox.security.namespaces)),
        selinux_options: security.selinux.as_ref().map(words::selinux),
        run_as_user: security.run_as_user.map(|value| proto::Int64Value { value }),
        run_as_group: security.run_as_group.map(|value| proto::Int64Value { value }),
        run_as_username: security.run_as_username.clone(),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: words::groups_policy(security.groups_policy).into(),
        no_new_privs: security.no_new_privs,
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.readonly_paths.clone(),
        seccomp: Some(words::profile(&security.seccomp)),
        ..Default::default()
    };
    wire.apparmor = security.apparmor.as_ref().map(words::profile);
    wire
}

fn mount(mount: &Mount) -> Result<proto::Mount, ConvertError> {
    let host_path =
        if mount.image.is_some() { String::new() } else { words::path("mount source", &mount.source)? };
    Ok(proto::Mount {
        container_path: words::path("mount destination", &mount.destination)?,
        host_path,
        readonly: mount.read_only || mount.recursive_read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation: words::propagation(mount.propagation).into(),
        uid_mappings: mount.uid_mappings.iter().map(words::mapping).collect(),
        gid_mappings: mount.gid_mappings.iter().map(words::mapping).collect(),
        recursive_read_only: mount.recursive_read_only,
        image: mount.image.as_ref().map(|volume| image_spec(&volume.image)),
        image_sub_path: mount.image.as_ref().map(|volume| volume.sub_path.clone()).unwrap_or_default(),
    })
}

/// Limits. Huge pages only in sizes that can be limited here: a limit of 0 for another size is left out, any
/// other is an error. The CRI has no field for `pids_limit`: the pod's cgroup, which the agent owns, limits it.
pub fn resources(
    resources: &LinuxResources,
    sizes: &BTreeSet<String>,
) -> Result<proto::LinuxContainerResources, ConvertError> {
    let mut hugepage_limits = Vec::new();
    for (page_size, limit) in &resources.hugepages {
        if sizes.contains(page_size) {
            hugepage_limits.push(proto::HugepageLimit { page_size: page_size.clone(), limit: *limit });
        } else if *limit > 0 {
            return Err(ConvertError::HugePages(page_size.clone()));
        }
    }
    Ok(proto::LinuxContainerResources {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_limit_in_bytes: resources.memory_limit,
        oom_score_adj: resources.oom_score_adj,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits,
        unified: wire_map(&resources.unified),
        memory_swap_limit_in_bytes: resources.memory_swap_limit,
    })
}

/// An image by name or id.
pub fn image_spec(image: &ImageSpec) -> proto::ImageSpec {
    proto::ImageSpec {
        image: image.image.clone(),
        annotations: wire_map(&image.annotations),
        runtime_handler: image.runtime_handler.clone(),
        ..Default::default()
    }
}

/// Credentials; none for anonymous pulls, so that the server may use its own.
pub fn auth(auth: &Auth) -> Option<proto::AuthConfig> {
    let empty = proto::AuthConfig::default();
    match auth {
        Auth::Anonymous => None,
        Auth::Basic { username, password } => {
            Some(proto::AuthConfig { username: username.clone(), password: password.clone(), ..empty })
        }
        Auth::Bearer(token) => Some(proto::AuthConfig { registry_token: token.clone(), ..empty }),
        Auth::Identity(token) => Some(proto::AuthConfig { identity_token: token.clone(), ..empty }),
    }
}

fn pod_labels(spec: &SandboxSpec, owner: &str) -> HashMap<String, String> {
    HashMap::from([
        (labels::OWNER.to_owned(), owner.to_owned()),
        (labels::POD_NAME.to_owned(), spec.pod.name.clone()),
        (labels::POD_NAMESPACE.to_owned(), spec.pod.namespace.clone()),
        (labels::POD_UID.to_owned(), spec.pod.uid.0.clone()),
    ])
}

fn check_log_path(log_path: &Path, directory: &Path) -> Result<(), ConvertError> {
    if log_path.as_os_str().is_empty() {
        return Ok(());
    }
    if directory.as_os_str().is_empty() {
        return Err(ConvertError::NoLogDirectory(log_path.to_owned()));
    }
    if log_path.components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(())
    } else {
        Err(ConvertError::LogPath(log_path.to_owned()))
    }
}

fn wire_map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use podstead_runtime::{NamespaceMode, Namespaces, PodIdentity};

    use super::*;

    fn node() -> Node {
        Node {
            owner: "podstead".into(),
            cgroup_parent: "/podstead".into(),
            hugepage_sizes: ["2MB".to_owned()].into(),
        }
    }

    fn pod() -> SandboxSpec {
        SandboxSpec {
            pod: PodIdentity { name: "web-n1".into(), namespace: "default".into(), uid: "u1".into() },
            log_directory: "/var/log/pods/default_web-n1_u1".into(),
            labels: [("app".to_owned(), "web".to_owned()), (labels::OWNER.to_owned(), "other".to_owned())]
                .into(),
            security: SandboxSecurity {
                namespaces: Namespaces { pid: NamespaceMode::Container, ..Namespaces::default() },
                ..SandboxSecurity::default()
            },
            ..SandboxSpec::default()
        }
    }

    fn container() -> ContainerSpec {
        ContainerSpec {
            name: "web".into(),
            attempt: 3,
            image: "nginx:1".into(),
            image_id: "sha256:abc".into(),
            log_path: "web/3.log".into(),
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn everything_made_bears_our_mark_and_the_pods_identity_whatever_the_spec_says() {
        let sandbox = sandbox_config(&pod(), &node()).unwrap();
        assert_eq!(sandbox.labels[labels::OWNER], "podstead");
        assert_eq!(sandbox.labels[labels::POD_UID], "u1");
        assert_eq!(sandbox.labels["app"], "web");
        let container = container_config(&container(), &pod(), &node()).unwrap();
        assert_eq!(container.labels[labels::OWNER], "podstead");
        assert_eq!(container.labels[labels::CONTAINER_NAME], "web");
        assert!(!container.labels.contains_key("app"), "the pod's own labels stay on the sandbox");
    }

    #[test]
    fn a_sandbox_always_has_a_cgroup_parent() {
        let parent = |spec: &SandboxSpec| sandbox_config(spec, &node()).unwrap().linux.unwrap().cgroup_parent;
        assert_eq!(parent(&pod()), "/podstead");
        assert_eq!(
            parent(&SandboxSpec { cgroup_parent: "/kubepods/podu1".into(), ..pod() }),
            "/kubepods/podu1"
        );
    }

    #[test]
    fn pid_container_stands_in_the_pod_and_in_the_container() {
        let mode = i32::from(proto::NamespaceMode::Container);
        let sandbox = sandbox_config(&pod(), &node()).unwrap();
        let own = sandbox.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
        assert_eq!(own.pid, mode);
        let container = container_config(&container(), &pod(), &node()).unwrap();
        let inner = container.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
        assert_eq!(inner.pid, mode);
    }

    #[test]
    fn the_image_goes_resolved_and_as_written() {
        let image = container_config(&container(), &pod(), &node()).unwrap().image.unwrap();
        assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:abc", "nginx:1"));
        let unresolved = ContainerSpec { image_id: String::new(), ..container() };
        let image = container_config(&unresolved, &pod(), &node()).unwrap().image.unwrap();
        assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("nginx:1", "nginx:1"));
    }

    #[test]
    fn huge_pages_are_sent_only_in_sizes_the_node_can_limit() {
        let limits = |pages: &[(&str, u64)]| {
            let hugepages = pages.iter().map(|(size, limit)| ((*size).to_owned(), *limit)).collect();
            resources(&LinuxResources { hugepages, ..LinuxResources::default() }, &node().hugepage_sizes)
                .map(|wire| wire.hugepage_limits.into_iter().map(|limit| limit.page_size).collect::<Vec<_>>())
        };
        assert_eq!(limits(&[("1GB", 0), ("2MB", 0)]), Ok(vec!["2MB".to_owned()]));
        assert_eq!(limits(&[("1GB", 5)]), Err(ConvertError::HugePages("1GB".into())));
    }

    #[test]
    fn a_log_path_stays_in_the_pods_log_directory() {
        for bad in ["/etc/x", "../x", "web/../../x", "./x"] {
            let spec = ContainerSpec { log_path: bad.into(), ..container() };
            assert_eq!(
                container_config(&spec, &pod(), &node()),
                Err(ConvertError::LogPath(bad.into())),
                "{bad}"
            );
        }
    }

    #[test]
    fn an_anonymous_pull_sends_no_credentials_and_others_exactly_theirs() {
        assert_eq!(auth(&Auth::Anonymous), None);
        assert_eq!(auth(&Auth::Identity("t".into())).unwrap().identity_token, "t");
        assert_eq!(auth(&Auth::Bearer("t".into())).unwrap().registry_token, "t");
    }
}
