//! Security of a pod and of its containers: the pod's settings overlaid by the container's
//! (`kubelet-static-pods.md 4.4`). Pure.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSpec, SELinuxOptions, SeccompProfile, SecurityContext,
};
use podstead_runtime::security::{DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS, GroupsPolicy};
use podstead_runtime::{
    ContainerSecurity, Image, NamespaceMode, Namespaces, Profile, SandboxSecurity, SelinuxOptions,
};
use thiserror::Error;

use super::sysctl::Allowed;
use super::{NodeFacts, identity};

/// Prefix of the annotation that names a container's AppArmor profile, older than the field.
pub const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Directory of seccomp profiles below the agent's root, as the kubelet has it.
const SECCOMP_DIR: &str = "seccomp";

/// What of the node decides about security.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Kernel parameters that pods may set besides the safe ones (`--allowed-unsafe-sysctls`).
    pub sysctls: Allowed,
    /// The node has AppArmor.
    pub apparmor: bool,
    /// The runtime can leave an image's groups out (`supplementalGroupsPolicy: Strict`).
    pub strict_groups: bool,
    /// The runtime can give pods a user namespace of their own (`hostUsers: false`).
    pub user_namespaces: bool,
    /// How many ids such a pod has; less than 65536 is that (`--userns-ids-per-pod`).
    pub ids_per_pod: u32,
    /// Masked paths that depend on the node: `/sys/devices/system/cpu/cpu<n>/thermal_throttle`.
    pub masked_paths: Vec<String>,
}

/// Who an image runs its programs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUser {
    /// A number; 0 when the image names nobody.
    Id(i64),
    /// A name, which only the image's own files make a number.
    Name(String),
}

impl Default for ImageUser {
    fn default() -> Self {
        Self::Id(0)
    }
}

impl From<&Image> for ImageUser {
    fn from(image: &Image) -> Self {
        match image.uid {
            Some(uid) => Self::Id(uid),
            None if image.username.is_empty() => Self::default(),
            None => Self::Name(image.username.clone()),
        }
    }
}

/// A container with `runAsNonRoot` that is or may be root. The kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{problem} (pod: {pod:?}, container: {container})")]
pub struct MayBeRoot {
    problem: String,
    pod: String,
    container: String,
}

/// Holds `runAsNonRoot` against the user that the container would run as. A name says nothing: it may mean 0.
pub fn verify_non_root(pod: &Pod, container: &Container, user: &ImageUser) -> Result<(), MayBeRoot> {
    let merged = effective(pod.spec.as_ref().unwrap_or(&PodSpec::default()), container);
    if merged.run_as_non_root != Some(true) {
        return Ok(());
    }
    let problem = match (merged.run_as_user, user) {
        (Some(0), _) => "container's runAsUser breaks non-root policy".to_owned(),
        (None, ImageUser::Id(0)) => "container has runAsNonRoot and image will run as root".to_owned(),
        (None, ImageUser::Name(name)) => format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        ),
        (Some(_), _) | (None, ImageUser::Id(_)) => return Ok(()),
    };
    let id = identity::identity(pod);
    let pod = format!("{}_{}({})", id.name, id.namespace, id.uid);
    Err(MayBeRoot { problem, pod, container: container.name.clone() })
}

/// The container's settings over the pod's. AppArmor has a rule of its own ([`apparmor`]).
fn effective(spec: &PodSpec, container: &Container) -> SecurityContext {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    SecurityContext {
        run_as_user: own.run_as_user.or(pod.run_as_user),
        run_as_group: own.run_as_group.or(pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(pod.run_as_non_root),
        se_linux_options: own.se_linux_options.or(pod.se_linux_options),
        seccomp_profile: own.seccomp_profile.or(pod.seccomp_profile),
        ..own
    }
}

/// Security of a container. `user` is the image's.
pub fn container(node: &NodeFacts, pod: &Pod, container: &Container, user: &ImageUser) -> ContainerSecurity {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let merged = effective(spec, container);
    let privileged = merged.privileged == Some(true);
    let capabilities = merged.capabilities.unwrap_or_default();
    let (run_as_user, run_as_username) = match (merged.run_as_user, user) {
        (Some(uid), _) => (Some(uid), String::new()),
        (None, ImageUser::Id(uid)) => (Some(*uid), String::new()),
        (None, ImageUser::Name(name)) => (None, name.clone()),
    };
    let open = privileged || merged.proc_mount.as_deref() == Some("Unmasked");
    let (masked_paths, readonly_paths) = if open { (Vec::new(), Vec::new()) } else { covered(node) };
    ContainerSecurity {
        namespaces: namespaces(spec),
        add_capabilities: names(capabilities.add.as_ref()),
        drop_capabilities: names(capabilities.drop.as_ref()),
        ambient_capabilities: Vec::new(),
        privileged,
        selinux: merged.se_linux_options.map(selinux),
        run_as_user,
        run_as_username,
        run_as_group: merged.run_as_group,
        readonly_rootfs: merged.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(spec),
        groups_policy: groups_policy(spec),
        no_new_privs: merged.allow_privilege_escalation == Some(false),
        masked_paths,
        readonly_paths,
        seccomp: seccomp(node, merged.seccomp_profile.as_ref()),
        apparmor: apparmor(pod, container),
    }
}

/// Capabilities as every runtime understands them: in capitals, without `CAP_`.
fn names(list: Option<&Vec<String>>) -> Vec<String> {
    list.into_iter().flatten().map(|name| capability(name)).collect()
}

/// The capability that a manifest means: `net_admin` and `CAP_NET_ADMIN` are `NET_ADMIN`.
pub fn capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

/// Security of the sandbox itself, which runs nothing of the pod's.
pub fn sandbox(spec: &PodSpec) -> SandboxSecurity {
    let pod = spec.security_context.as_ref();
    SandboxSecurity {
        namespaces: namespaces(spec),
        selinux: pod.and_then(|s| s.se_linux_options.clone()).map(selinux),
        run_as_user: pod.and_then(|s| s.run_as_user),
        // The CRI forbids a group without a user; the kubelet sends it, and such a pod never starts.
        run_as_group: pod.and_then(|s| s.run_as_user.and(s.run_as_group)),
        readonly_rootfs: false,
        supplemental_groups: groups(spec),
        groups_policy: groups_policy(spec),
        privileged: containers(spec)
            .any(|c| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true))),
        seccomp: Profile::RuntimeDefault,
        apparmor: None,
    }
}

/// Namespaces of the pod and of each of its containers: the runtimes want both told the same.
pub fn namespaces(spec: &PodSpec) -> Namespaces {
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let of = |host: Option<bool>| if on(host) { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = match (on(spec.host_pid), on(spec.share_process_namespace)) {
        (true, _) => NamespaceMode::Node,
        (false, true) => NamespaceMode::Pod,
        (false, false) => NamespaceMode::Container,
    };
    // Which ids a user namespace has, only the node knows: see [`has_users`].
    Namespaces { network: of(spec.host_network), pid, ipc: of(spec.host_ipc), user: None }
}

/// Whether the pod has a user namespace of its own.
pub fn has_users(spec: &PodSpec) -> bool {
    spec.host_users == Some(false)
}

/// All containers of the pod, those that run before the others too.
pub(super) fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// What hides the node: masked paths, then read-only ones.
fn covered(node: &NodeFacts) -> (Vec<String>, Vec<String>) {
    let mut masked = DEFAULT_MASKED_PATHS.map(str::to_owned).to_vec();
    masked.extend(node.security.masked_paths.iter().cloned());
    (masked, DEFAULT_READONLY_PATHS.map(str::to_owned).to_vec())
}

/// The volumes' group, then the others.
fn groups(spec: &PodSpec) -> Vec<i64> {
    let Some(pod) = &spec.security_context else { return Vec::new() };
    pod.fs_group.iter().chain(pod.supplemental_groups.iter().flatten()).copied().collect()
}

fn groups_policy(spec: &PodSpec) -> GroupsPolicy {
    let policy = spec.security_context.as_ref().and_then(|s| s.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") { GroupsPolicy::Strict } else { GroupsPolicy::Merge }
}

fn selinux(options: SELinuxOptions) -> SelinuxOptions {
    SelinuxOptions {
        user: options.user.unwrap_or_default(),
        role: options.role.unwrap_or_default(),
        kind: options.type_.unwrap_or_default(),
        level: options.level.unwrap_or_default(),
    }
}

fn seccomp(node: &NodeFacts, profile: Option<&SeccompProfile>) -> Profile {
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => Profile::RuntimeDefault,
        Some(("Localhost", name)) => {
            let path = node.root_dir.join(SECCOMP_DIR).join(name.unwrap_or_default());
            Profile::Localhost(path.to_string_lossy().into_owned())
        }
        None if node.seccomp_default => Profile::RuntimeDefault,
        Some(_) | None => Profile::Unconfined,
    }
}

/// The container's own field, else its annotation, else the pod's field; `None` leaves it to the runtime.
pub fn apparmor(pod: &Pod, container: &Container) -> Option<Profile> {
    let own = container.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
    let annotation = || {
        let key = format!("{APPARMOR_ANNOTATION}{}", container.name);
        annotated(pod.metadata.annotations.as_ref()?.get(&key)?)
    };
    let of_pod = || {
        let security = pod.spec.as_ref()?.security_context.as_ref()?;
        security.app_armor_profile.as_ref().map(apparmor_field)
    };
    own.map(apparmor_field).or_else(annotation).or_else(of_pod)
}

fn apparmor_field(profile: &AppArmorProfile) -> Profile {
    match profile.type_.as_str() {
        "RuntimeDefault" => Profile::RuntimeDefault,
        "Localhost" => Profile::Localhost(profile.localhost_profile.clone().unwrap_or_default()),
        _ => Profile::Unconfined,
    }
}

fn annotated(value: &str) -> Option<Profile> {
    match value {
        "" => None,
        "runtime/default" => Some(Profile::RuntimeDefault),
        "unconfined" => Some(Profile::Unconfined),
        name => name.strip_prefix("localhost/").map(|name| Profile::Localhost(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod with these settings and one container `c` with those.
    fn pod(settings: &str, own: &str) -> Pod {
        let text = format!(
            "metadata: {{name: web-node, namespace: default, uid: u1}}\n\
             spec: {{{settings}, containers: [{{name: c, securityContext: {{{own}}}}}]}}"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    fn node() -> NodeFacts {
        NodeFacts { root_dir: "/var/lib/podstead".into(), ..NodeFacts::default() }
    }

    fn first(pod: &Pod) -> &Container {
        &pod.spec.as_ref().unwrap().containers[0]
    }

    fn made(settings: &str, own: &str) -> ContainerSecurity {
        let pod = pod(&format!("securityContext: {{{settings}}}"), own);
        container(&node(), &pod, first(&pod), &ImageUser::default())
    }

    #[test]
    fn the_containers_settings_lie_over_the_pods() {
        type Seen = fn(&ContainerSecurity) -> String;
        let user: Seen = |s| format!("{:?}", s.run_as_user);
        let group: Seen = |s| format!("{:?}", s.run_as_group);
        let seccomp: Seen = |s| format!("{:?}", s.seccomp);
        let level: Seen = |s| s.selinux.as_ref().map(|o| o.level.clone()).unwrap_or_default();
        let kind: Seen = |s| s.selinux.as_ref().map(|o| o.kind.clone()).unwrap_or_default();
        let apparmor: Seen = |s| format!("{:?}", s.apparmor);
        for (of_pod, own, seen, expected) in [
            ("runAsUser: 5", "", user, "Some(5)"),
            ("runAsUser: 5", "runAsUser: 7", user, "Some(7)"),
            ("runAsUser: 5", "runAsUser: 0", user, "Some(0)"),
            ("", "", group, "None"),
            ("runAsGroup: 5", "", group, "Some(5)"),
            ("runAsGroup: 5", "runAsGroup: 7", group, "Some(7)"),
            ("seccompProfile: {type: RuntimeDefault}", "", seccomp, "RuntimeDefault"),
            (
                "seccompProfile: {type: RuntimeDefault}",
                "seccompProfile: {type: Unconfined}",
                seccomp,
                "Unconfined",
            ),
            ("seLinuxOptions: {level: s0}", "", level, "s0"),
            // Taken as a whole: the pod's level does not shine through.
            ("seLinuxOptions: {level: s0}", "seLinuxOptions: {type: t}", level, ""),
            ("seLinuxOptions: {level: s0}", "seLinuxOptions: {type: t}", kind, "t"),
            ("", "", apparmor, "None"),
            ("appArmorProfile: {type: RuntimeDefault}", "", apparmor, "Some(RuntimeDefault)"),
            (
                "appArmorProfile: {type: RuntimeDefault}",
                "appArmorProfile: {type: Localhost, localhostProfile: web}",
                apparmor,
                "Some(Localhost(\"web\"))",
            ),
        ] {
            assert_eq!(seen(&made(of_pod, own)), expected, "pod {of_pod:?}, container {own:?}");
        }
    }

    #[test]
    fn flags_and_lists_of_the_container_are_passed_on() {
        let plain = made("", "");
        assert!(!plain.privileged && !plain.readonly_rootfs && !plain.no_new_privs);
        assert_eq!(plain.groups_policy, GroupsPolicy::Merge);
        let all = made(
            "fsGroup: 3, supplementalGroups: [4, 5], supplementalGroupsPolicy: Strict",
            "readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {add: [CAP_NET_ADMIN, sys_time], drop: [all]}",
        );
        assert!(all.readonly_rootfs && all.no_new_privs);
        assert_eq!(all.supplemental_groups, [3, 4, 5]);
        assert_eq!(all.groups_policy, GroupsPolicy::Strict);
        assert_eq!(
            (&all.add_capabilities[..], &all.drop_capabilities[..]),
            (&["NET_ADMIN".to_owned(), "SYS_TIME".to_owned()][..], &["ALL".to_owned()][..])
        );
        assert!(!made("", "allowPrivilegeEscalation: true").no_new_privs);
    }

    #[test]
    fn nothing_is_covered_for_privileged_containers_or_an_unmasked_proc() {
        let masked = |own: &str| made("", own).masked_paths.len();
        let readonly = |own: &str| made("", own).readonly_paths.len();
        assert_eq!((masked(""), readonly("")), (12, 5));
        assert_eq!((masked("procMount: Default"), readonly("procMount: Default")), (12, 5));
        for open in ["privileged: true", "procMount: Unmasked"] {
            assert_eq!((masked(open), readonly(open)), (0, 0), "{open}");
        }
        let facts = Facts { masked_paths: vec!["/sys/x".into()], ..Facts::default() };
        let node = NodeFacts { security: facts, ..node() };
        let pod = pod("hostPID: false", "");
        let made = container(&node, &pod, first(&pod), &ImageUser::default());
        assert!(made.masked_paths.contains(&"/sys/x".to_owned()));
    }

    #[test]
    fn the_image_says_who_runs_where_the_pod_does_not() {
        let as_user = |own: &str, user: ImageUser| {
            let pod = pod("hostPID: false", own);
            let made = container(&node(), &pod, first(&pod), &user);
            (made.run_as_user, made.run_as_username)
        };
        let web = || ImageUser::Name("web".into());
        assert_eq!(as_user("", ImageUser::default()), (Some(0), String::new()));
        assert_eq!(as_user("", ImageUser::Id(33)), (Some(33), String::new()));
        assert_eq!(as_user("", web()), (None, "web".into()));
        assert_eq!(as_user("runAsUser: 7", web()), (Some(7), String::new()));
        let image = |uid, username: &str| Image { uid, username: username.into(), ..Image::default() };
        assert_eq!(ImageUser::from(&image(None, "")), ImageUser::Id(0));
        assert_eq!(ImageUser::from(&image(Some(5), "")), ImageUser::Id(5));
        assert_eq!(ImageUser::from(&image(None, "web")), web());
    }

    #[test]
    fn who_may_be_root_is_told_in_the_kubelets_words() {
        let verify = |settings: &str, own: &str, user: ImageUser| {
            let pod = pod(&format!("securityContext: {{{settings}}}"), own);
            verify_non_root(&pod, first(&pod), &user).map_err(|e| e.to_string())
        };
        let end = "(pod: \"web-node_default(u1)\", container: c)";
        let on = "runAsNonRoot: true";
        let refused = |words: &str| Err(format!("{words} {end}"));
        assert_eq!(
            verify(on, "", ImageUser::default()),
            refused("container has runAsNonRoot and image will run as root")
        );
        assert_eq!(
            verify("", on, ImageUser::Name("web".into())),
            refused(
                "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root"
            )
        );
        assert_eq!(
            verify("runAsUser: 0", on, ImageUser::Id(7)),
            refused("container's runAsUser breaks non-root policy")
        );
        for (settings, own, user) in [
            ("", "", ImageUser::default()),
            (on, "runAsNonRoot: false", ImageUser::default()),
            (on, "", ImageUser::Id(7)),
            (on, "runAsUser: 7", ImageUser::Name("root".into())),
        ] {
            assert_eq!(verify(settings, own, user), Ok(()), "{settings:?} {own:?}");
        }
    }

    #[test]
    fn a_seccomp_profile_of_the_node_is_a_file_below_the_root() {
        let own = "seccompProfile: {type: Localhost, localhostProfile: web/strict.json}";
        let path = "/var/lib/podstead/seccomp/web/strict.json";
        assert_eq!(made("", own).seccomp, Profile::Localhost(path.into()));
        let node = NodeFacts { seccomp_default: true, ..node() };
        let seccomp = |own: &str| {
            let pod = pod("hostPID: false", own);
            container(&node, &pod, first(&pod), &ImageUser::default()).seccomp
        };
        assert_eq!(seccomp(""), Profile::RuntimeDefault);
        assert_eq!(seccomp("seccompProfile: {type: Unconfined}"), Profile::Unconfined);
        assert_eq!(made("", "").seccomp, Profile::Unconfined);
    }

    #[test]
    fn an_apparmor_annotation_stands_between_the_two_fields() {
        let with = |settings: &str, own: &str, annotation: &str| {
            let mut pod = pod(&format!("securityContext: {{{settings}}}"), own);
            let key = format!("{APPARMOR_ANNOTATION}c");
            pod.metadata.annotations = Some([(key, annotation.to_owned())].into());
            apparmor(&pod, first(&pod))
        };
        let field = "appArmorProfile: {type: Unconfined}";
        assert_eq!(with(field, "", "runtime/default"), Some(Profile::RuntimeDefault));
        assert_eq!(with("", field, "localhost/web"), Some(Profile::Unconfined));
        assert_eq!(with("", "", "localhost/web"), Some(Profile::Localhost("web".into())));
        assert_eq!(with(field, "", ""), Some(Profile::Unconfined));
        assert_eq!(with("", "", "unconfined"), Some(Profile::Unconfined));
    }

    #[test]
    fn namespaces_are_the_nodes_where_the_pod_says_so() {
        let of = |settings: &str| {
            let namespaces = namespaces(pod(settings, "").spec.as_ref().unwrap());
            (namespaces.network, namespaces.pid, namespaces.ipc)
        };
        use NamespaceMode::{Container, Node, Pod};
        assert_eq!(of("hostPID: false"), (Pod, Container, Pod));
        assert_eq!(of("hostPID: true"), (Pod, Node, Pod));
        assert_eq!(of("hostIPC: true"), (Pod, Container, Node));
        assert_eq!(of("hostNetwork: true"), (Node, Container, Pod));
        assert_eq!(of("shareProcessNamespace: true"), (Pod, Pod, Pod));
        assert_eq!(of("shareProcessNamespace: false"), (Pod, Container, Pod));
    }

    #[test]
    fn the_sandbox_has_the_pods_own_settings_and_knows_of_any_privileged_container() {
        let of = |settings: &str, own: &str| sandbox(pod(settings, own).spec.as_ref().unwrap());
        let made = of("securityContext: {runAsUser: 5, runAsGroup: 6, fsGroup: 7}", "runAsUser: 9");
        assert_eq!((made.run_as_user, made.run_as_group), (Some(5), Some(6)));
        assert_eq!(made.supplemental_groups, [7]);
        assert_eq!((made.privileged, made.seccomp), (false, Profile::RuntimeDefault));
        assert!(of("hostPID: false", "privileged: true").privileged);
        let init = "initContainers: [{name: i, securityContext: {privileged: true}}]";
        assert!(of(init, "").privileged);
    }
}
